"""README.md of a deployed net: how to feed it, and what comes out."""

from __future__ import annotations

UNIT = "It has length 1: the similarity of two images is the sum of products, their cosine."
NOT_UNIT = """It has no fixed length. The host divides it, y = x / sqrt(sum of x_i^2); the
similarity of two images is then the sum of products of their y, their cosine."""
AS_IT_IS = "Pixels 0 to 255 as they are.\n"
UNKNOWN = "The training net began with an Input: how its images were prepared is not known.\n"

PAGE = """# A deployed net

{files}

## In: `{input}`

N x {shape}: {channels}, {height} high, {width} wide.

{steps}
The same numbers stand in `preprocess.json`.

## Out: `{output}`

{numbers} numbers an image. {length}

## Compared with the training net

On {images} random images; the greatest difference is relative to the largest output.

| runtime | version | greatest difference | least cosine |
| --- | --- | --- | --- |
{runs}"""


def text(prepared, report, files) -> str:
    """What a person needs who has this folder alone."""
    runs = "".join(
        f"| {name} | {one['version']} | {one['relative_difference']:.1e} | {one['cosine']:.6f} |\n"
        for name, one in report.items()
        if isinstance(one, dict) and "version" in one
    )
    return PAGE.format(
        files=", ".join(f"`{name}`" for name in files),
        input=prepared.input,
        output=prepared.output,
        shape=f"{prepared.channels} x {prepared.height} x {prepared.width}",
        channels="gray" if prepared.channels == 1 else f"{prepared.channels} channels, BGR",
        height=prepared.height,
        width=prepared.width,
        steps=_steps(prepared),
        numbers=report["numbers"],
        length=UNIT if prepared.unit_output else NOT_UNIT,
        images=report["images"],
        runs=runs,
    )


def _steps(prepared) -> str:
    steps = []
    if prepared.resize:
        width, height = prepared.resize
        steps.append(f"resize to a width of {width} and a height of {height}")
    if prepared.mean_file:
        steps.append(f"subtract the mean image, `{prepared.mean_file}`")
    if prepared.crop:
        steps.append(f"cut {prepared.crop} x {prepared.crop} out of the middle")
    if prepared.mean_value:
        means = ", ".join(f"{mean:g}" for mean in prepared.mean_value)
        steps.append(f"subtract {means} from the channels, of pixels 0 to 255")
    if prepared.scale != 1:
        steps.append(f"multiply by {prepared.scale:.9g}")
    if not steps:
        return AS_IT_IS if prepared.source else UNKNOWN
    return "".join(f"{number}. {step}\n" for number, step in enumerate(steps, 1))
