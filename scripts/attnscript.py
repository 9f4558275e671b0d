"""How every script ends: a file that cannot be used is refused with one sentence and an exit code, never a traceback."""
import sys
from pathlib import Path


VERSION = "0.1.0"  # that of CMakeLists.txt


class Refusal(Exception):
    def __init__(self, sentence, code=2):
        super().__init__(sentence)
        self.code = code


def script(main):
    """Runs a script's main() and turns refusals into a sentence on stderr and an exit code; --version of every script."""
    name = Path(sys.argv[0]).name
    try:
        if sys.argv[1:] == ["--version"]:
            print(f"{name} of attnbench {VERSION}")
            sys.exit(0)
        code = main()
        sys.stdout.flush()
        sys.exit(code)
    except Refusal as refusal:
        print(f"{name}: {refusal}", file=sys.stderr)
        sys.exit(refusal.code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        print(f"{name}: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        sys.exit(2)
