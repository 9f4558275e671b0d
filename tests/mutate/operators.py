"""Small faults in C++ source, one line each: what a slip of the pen would be."""
import random
import re

# (name, pattern, replacement). Patterns meet code without comments and string literals.
OPERATORS = [
    ("bound", r"(?<=[\w)\]]) < (?=[\w(])", " <= "),
    ("bound", r" <= ", " < "),
    ("bound", r"(?<=[\w)\]]) > (?=[\w(])", " >= "),
    ("bound", r" >= ", " > "),
    ("comparison", r" == ", " != "),
    ("comparison", r" != ", " == "),
    ("sum", r"(?<=[\w)\]]) \+ (?=[\w(])", " - "),
    ("sum", r"(?<=[\w)\]]) - (?=[\w(])", " + "),
    ("sum", r" \+= ", " -= "),
    ("sum", r" -= ", " += "),
    ("product", r"(?<=[\w)\]]) \* (?=[\w(])", " + "),
    ("product", r"(?<=[\w)\]]) / (?=[\w(])", " * "),
    ("remainder", r" % ", " / "),
    ("minimum", r"\bmin\b(?=[<(])", "max"),
    ("minimum", r"\bmax\b(?=[<(])", "min"),
    ("logic", r" && ", " || "),
    ("logic", r" \|\| ", " && "),
    ("off by one", r" \+ 1\b", ""),
    ("off by one", r" - 1\b", ""),
    ("off by one", r"\b1\b(?=[;,)\]])", "2"),
    ("off by one", r"(?<== )0(?=;)", "1"),
    ("mask", r"\b(p_?)\.causal\b", r"!\1.causal"),
    ("flag", r"\btrue\b", "false"),
    ("flag", r"\bfalse\b", "true"),
    ("stride", r"\b(stride|extent)\(1\)", r"\1(2)"),
    ("stride", r"\b(stride|extent)\(2\)", r"\1(1)"),
    ("stride", r"\b(stride|extent)\(3\)", r"\1(2)"),
    ("length", r"\bkv_len\b", "q_len"),
    ("length", r"\bq_len\b", "kv_len"),
    ("width", r"\bvalue_dim\b", "head_dim"),
    ("width", r"\bhead_dim\b", "value_dim"),
    ("heads", r"\bkv_heads\b", "heads"),
    ("merge order", r"\b(merge|add|copy_n)\(([\w.]+), ([\w.]+)(?=[,)])", r"\1(\3, \2"),
    ("left out", r"^(\s+)[a-z_][\w.:>-]*\([^{}]*\);$", r"\1;"),
    ("left out", r"^(\s+)[\w.\[\]*()]+ [+*/-]?= [^{}]*;$", r"\1;"),
    ("constant", r"(?<=[ (])0\.(\d+)\b", r"0.9\1"),
    ("constant", r"\b(\d)e-(\d+)\b", r"\1e-1\2"),
]

# Not code that runs, or code that only says how: declarations, checks of the compiler, documentation for people.
SKIPPED = re.compile(r"^\s*(#|//|static_assert|ATTN_ASSERT|template|using|namespace|return refuse|\.(doc|title|formula|paper|axes|name)\b)"
                     r"|fetch|Prefetch|prefetch")


def blanked(line):
    """The line with comments and the insides of string literals as blanks: positions stay."""
    out, i, quote = [], 0, ""
    while i < len(line):
        c = line[i]
        if quote:
            if c == "\\":
                out.append("\0\0")
                i += 2
                continue
            out.append(c if c == quote else "\0")
            quote = "" if c == quote else quote
        elif c in "\"'" and not (c == "'" and i > 0 and line[i - 1].isdigit()):
            quote = c
            out.append(c)
        elif line.startswith("//", i):
            break
        else:
            out.append(c)
        i += 1
    return "".join(out)


def mutants_of(text):
    """[(line number from 0, operator, new line)] of a source file, every one that the operators make."""
    found = []
    for number, line in enumerate(text.split("\n")):
        if SKIPPED.search(line):
            continue
        code = blanked(line)
        for operator, pattern, replacement in OPERATORS:
            for match in re.finditer(pattern, code):
                new = line[:match.start()] + match.expand(replacement) + line[match.end():]
                if new != line:
                    found.append((number, operator, new))
    return found


def drawn(sources, count, seed):
    """`count` of all mutants of the files: first a folder, then a file, then one of its mutants, so that no long file has them all.
    sources: {folder: [(path, text)]}. [(folder, path, line number, operator, new line)]"""
    dice = random.Random(seed)
    every = {folder: [(path, mutants_of(text)) for path, text in files] for folder, files in sources.items()}
    every = {folder: [(path, list_) for path, list_ in files if list_] for folder, files in every.items()}
    folders = sorted(folder for folder, files in every.items() if files)
    chosen, seen = [], set()
    for _ in range(20 * count):
        if not folders or len(chosen) == count:
            break
        folder = folders[len(chosen) % len(folders)]
        path, mutants = dice.choice(every[folder])
        mutant = (folder, path, *dice.choice(mutants))
        if mutant not in seen:
            seen.add(mutant)
            chosen.append(mutant)
    return chosen
