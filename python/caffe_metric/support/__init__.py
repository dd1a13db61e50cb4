"""What every room needs: errors, files, paths, progress, child processes."""
