"""`python -m peft_inspect`."""

from peft_inspect.cli import main

if __name__ == "__main__":
    main()
