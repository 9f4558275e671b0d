"""Small trees with something too long in them: sizes.py must name it, with its line, and nothing else."""
import contextlib
import io
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent))
import sizes  # noqa: E402

FIVE = "  work();\n" * 5
LONG = "  work();\n" * 79


def functions(text):
    return sizes.functions(text)


class Sizes(unittest.TestCase):
    def check(self, files, exceptions=()):
        with tempfile.TemporaryDirectory() as folder:
            for name, text in files.items():
                path = Path(folder) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            return sizes.check(Path(folder), {key: "a reason" for key in exceptions})

    def test_a_file_of_500_lines_passes_and_one_of_501_is_named(self):
        for name in ("harness/attn/core/view.hpp", "variants/scores/full.cpp", "tests/cli/sweep_test.py", "scripts/page/page.js"):
            self.assertEqual(self.check({name: "\n" * 500}), [])
            self.assertEqual(self.check({name: "\n" * 501}), [f"{name}:1: 501 lines, 500 at most"])

    def test_data_and_other_folders_are_not_measured(self):
        self.assertEqual(self.check({name: "\n" * 501 for name in ("tests/golden/row.txt", "tests/fuzz/corpus/csv/x.txt",
                                                                   "results/a.md", "scripts/table.csv")}), [])

    def test_a_function_of_80_lines_passes_and_one_of_81_is_named(self):
        body = "namespace attn {\n\nint f() {\n"
        self.assertEqual(self.check({"variants/a/b.cpp": body + LONG[:-10] + "}\n}\n"}), [])
        self.assertEqual(self.check({"variants/a/b.cpp": body + LONG + "}\n}\n"}),
                         ["variants/a/b.cpp:3: f has 81 lines, 80 at most"])
        self.assertEqual(self.check({"tests/b.cpp": body + LONG + "}\n}\n"}), [])

    def test_an_exception_covers_what_it_names_alone_and_must_be_needed(self):
        files = {"harness/a.cpp": "int f() {\n" + LONG + "}\n"}
        self.assertEqual(self.check(files, ["harness/a.cpp: f"]), [])
        self.assertEqual(self.check(files, ["harness/a.cpp: f", "harness/a.cpp: g"]),
                         ["harness/a.cpp:1: short enough; take 'harness/a.cpp: g' out of the exceptions"])
        self.assertEqual(len(self.check(files, ["harness/a.cpp"])), 2)

    def test_heads_of_every_kind_are_functions(self):
        for head, name in [("void Foo::bar(int a,\n         int b) const noexcept", "Foo::bar"),
                           ("template <class T, int kN = (3 > 2)>\nHWY_INLINE T f(T (&to)[4])", "f"),
                           ("auto f(int x) -> std::vector<int>", "f"),
                           ("struct tm f()", "f"),
                           ("[[gnu::target(\"avx2,fma\")]] void f(const float* in)", "f"),
                           ("constexpr auto f = [](int x)", None),
                           ("bool operator==(const A& a, const A& b)", "operator=="),
                           ("int f(Options options = {}, int n = 3)", "f")]:
            (found, first, lines), = functions("namespace a {\n\n" + head + " {\n" + FIVE + "}\n\n}\n")
            self.assertEqual((first, lines), (3, 7 + head.count("\n")), head)
            if name:
                self.assertEqual(found, name)

    def test_a_constructor_counts_from_its_name_through_initialisers_in_braces(self):
        text = "A::A(int n)\n    : a_{n, n},\n      b_(n),\n      c_{} {\n" + FIVE + "}\nint f() {\n" + FIVE + "}\n"
        self.assertEqual(functions(text), [("A::A", 1, 10), ("f", 11, 7)])

    def test_functions_inside_classes_count_one_by_one(self):
        text = "class A final : public B<int> {\n public:\n  int f() { return 1; }\n  int g() {\n" + FIVE + "  }\n  int x_{3};\n};\n"
        self.assertEqual(functions(text), [("f", 3, 1), ("g", 4, 7)])

    def test_tables_and_scopes_are_no_functions(self):
        text = ("namespace {\nconstexpr int table[] = {\n" + "  f(1),\n" * 90 + "};\nenum class E { a, b };\nextern \"C\" {\nint g();\n}\n"
                "inline constexpr Ops ops{f<1>(), 2};\n}\nMACRO(A, b,\n      c)\n\nstruct S {\n" + "  int a = f(2);\n" * 90 + "};\n")
        self.assertEqual(functions(text), [])

    def test_braces_in_strings_comments_and_directives_do_not_count(self):
        text = ("#define OPEN(x) {  \\\n  {\nint f() {\n  // }\n  /* } */ char a = '}', b = '\\'';\n  long n = 1'000'000;\n"
                '  g("}\\"}", R"(})}" ) } )", R"x()"})x");\n}\n')
        self.assertEqual(functions(text), [("f", 3, 6)])

    def test_a_lambda_counts_with_its_function(self):
        self.assertEqual(functions("int f() {\n  const auto g = [&](int x) {\n" + FIVE + "  };\n}\n"), [("f", 1, 9)])

    def test_braces_that_do_not_balance_are_a_mistake(self):
        for text in ("int f() {\n", "namespace a {\n", "}\n"):
            self.assertEqual(self.check({"harness/a.cpp": text}), [
                "harness/a.cpp:1: braces do not balance, so no function can be counted"])

    def test_the_program_prints_what_is_wrong_and_fails(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "scripts").mkdir()
            (Path(folder) / "scripts/a.py").write_text("\n" * 501)
            said = io.StringIO()
            with mock.patch.object(sys, "argv", ["sizes.py", folder]), mock.patch.object(sizes, "EXCEPTIONS", {}), \
                    contextlib.redirect_stdout(said):
                self.assertEqual(sizes.main(), 1)
            self.assertEqual(said.getvalue(), "scripts/a.py:1: 501 lines, 500 at most\n")


if __name__ == "__main__":
    unittest.main()
