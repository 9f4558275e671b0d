"""Writes the page that variants/README.md shows to a file: readme_page.py variants/README.md my_window.cpp"""
import pathlib
import re
import sys

(page,) = re.findall(r"```cpp\n(.*?)```", pathlib.Path(sys.argv[1]).read_text(), re.S)
pathlib.Path(sys.argv[2]).write_text(page)
