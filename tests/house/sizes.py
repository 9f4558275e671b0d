#!/usr/bin/env python3
"""Checks that files and functions stay small: sizes.py [ROOT].

No source file of harness/, variants/, tests/ and scripts/ has more than 500 lines, and no C++ function of harness/ and variants/ more
than 80, from the first line of its head to its closing brace; lambdas count with the function that they stand in.
"""
import re
import sys
from pathlib import Path

FOLDERS = ("harness", "variants", "tests", "scripts")
SUFFIXES = {".cpp", ".hpp", ".py", ".sh", ".js", ".css", ".html", ".cmake", ".txt", ".in", ".inc", ".md"}
NOT_OURS = re.compile(r"tests/(fuzz/corpus|golden)/")
FUNCTION_FOLDERS = ("harness", "variants")
FILE_LINES, FUNCTION_LINES = 500, 80

# What may be longer, and why: "file" or "file: function". One that is no longer needed is itself a mistake.
EXCEPTIONS = {
    "harness/attn/sweep/options.cpp: declare": "a table, one entry a flag",
}

# What the braces of C++ may hide in. An apostrophe between digits is no quote.
HIDDEN = re.compile(
    r'R"(?P<mark>[^()\\ ]*)\(.*?\)(?P=mark)"'
    r'|//[^\n]*|/\*.*?\*/'
    r'|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])+'"
    r"|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*",
    re.S | re.M)
SCOPE = re.compile(r"(?:inline\s+)?namespace\b|extern\s*$|(?:template\s*<.*>\s*)?(?:typedef\s+)?(?:class|struct|union|enum)\b", re.S)
MACRO = re.compile(r"\s*[A-Z][A-Z0-9_]+\(")  # a call of one that ends its line is a declaration, though no semicolon follows
ATTRIBUTES = re.compile(r"\[\[.*?\]\]|\b(?:__attribute__|alignas|requires)\s*\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)", re.S)


class Unbalanced(Exception):
    pass


def blank(match):
    """As many lines, and nothing on them; what was a string stays a token."""
    text = match.group()
    return ('""' if text[0] in "\"'R" else "") + "\n" * text.count("\n")


def name_of(head):
    """The name in the head of a function: what stands before its parameters."""
    found = re.search(r"([A-Za-z_~][\w:~]*|operator\s*[^\s\w(]+|operator\s*\(\s*\))\s*\(", ATTRIBUTES.sub("", head))
    return found.group(1).strip() if found else head.strip().split("\n")[0]


def is_function(head):
    """Whether a brace after `head`, outside any function, opens one: not a scope and not an initialiser."""
    head = ATTRIBUTES.sub("", head).strip()
    if "(" not in head or head.endswith("="):
        return False
    # `class Name final : public Base` has no parameters; a function that returns `struct x` has.
    return not (SCOPE.match(head) and not re.search(r"\)\s*(?:const|noexcept|override|final|\w+_ATTR|->.*|:.*)?\s*$", head, re.S))


def functions(text):
    """(name, first line, lines) of each function in a C++ file."""
    code = HIDDEN.sub(blank, text)
    found = []
    scopes = []  # of the open braces outside functions
    head_at = 0  # where the head of what comes next begins
    parentheses = 0
    body = None  # [name, first line, open braces] while inside a function
    last = None  # the function that ended just now: an initialiser in its head, if its head goes on
    line = 1
    for at, character in enumerate(code):
        if character == "\n":
            line += 1
        elif body is not None:
            body[2] += {"{": 1, "}": -1}.get(character, 0)
            if body[2] == 0:
                last, body, head_at = (body[0], body[1], line), None, at + 1
        elif character in "()":
            parentheses += 1 if character == "(" else -1
            if not parentheses and code[at + 1:at + 2] == "\n" and MACRO.match(code, head_at):
                head_at = at + 1
        elif parentheses:
            continue
        elif character == "{":
            head = code[head_at:at]
            if last and head.strip()[:1] in ("", ","):  # the head of a constructor goes on
                body, last = [last[0], last[1], 1], None
                continue
            if last:
                found.append(last)
                last = None
            if is_function(head):
                body = [name_of(head), line - head.lstrip().count("\n"), 1]
            else:
                scopes.append(line)
                head_at = at + 1
        elif character == ":" and code[head_at:at].strip() in ("public", "protected", "private"):
            head_at = at + 1
        elif character in ";}":
            if last:
                found.append(last)
                last = None
            if character == "}":
                if not scopes:
                    raise Unbalanced(line)
                scopes.pop()
            head_at = at + 1
    if last:
        found.append(last)
    if scopes or body:
        raise Unbalanced(scopes[0] if scopes else body[1])
    return [(name, first, end - first + 1) for name, first, end in found]


def too_long(root):
    """(name in EXCEPTIONS, line, sentence) of everything above its limit."""
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*")):
            shown = file.relative_to(root).as_posix()
            if file.suffix not in SUFFIXES or not file.is_file() or NOT_OURS.match(shown) or "__pycache__" in shown:
                continue
            text = file.read_text()
            lines = text.count("\n")
            if lines > FILE_LINES:
                yield shown, 1, f"{lines} lines, {FILE_LINES} at most"
            if folder not in FUNCTION_FOLDERS or file.suffix not in (".cpp", ".hpp"):
                continue
            try:
                for name, first, count in functions(text):
                    if count > FUNCTION_LINES:
                        yield f"{shown}: {name}", first, f"{name} has {count} lines, {FUNCTION_LINES} at most"
            except Unbalanced as brace:
                yield f"{shown}: braces", brace.args[0], "braces do not balance, so no function can be counted"


def check(root, exceptions):
    """One sentence for each mistake, as file:line: sentence."""
    long = list(too_long(root))
    wrong = [f"{key.split(':')[0]}:{line}: {sentence}" for key, line, sentence in long if key not in exceptions]
    needed = {key for key, _, _ in long}
    wrong += [f"{key.split(':')[0]}:1: short enough; take '{key}' out of the exceptions" for key in exceptions if key not in needed]
    return wrong


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[2]).resolve()
    wrong = check(root, EXCEPTIONS)
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
