"""The older project's list of samples: lines `person@file label`."""

from __future__ import annotations

from pathlib import Path

import config


class sampledata:  # noqa: N801 - the older name
    """The images of a list, by person.

    _sample         file names, as they stand in the list
    _sample_person  {person: file names}
    _sample_label   {file name: label}
    """

    def __init__(self, image_list=None):
        path = Path(image_list or getattr(config, "IMAGE_LIST", "train.txt"))
        self._sample = []
        self._sample_person = {}
        self._sample_label = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            name, _, label = line.strip().rpartition(" ")
            if not name or not label.isdecimal():
                raise ValueError(f"{path}:{number}: 'person@file label' expected, not '{line}'")
            self._sample.append(name)
            self._sample_person.setdefault(name.partition("@")[0], []).append(name)
            self._sample_label[name] = int(label)
