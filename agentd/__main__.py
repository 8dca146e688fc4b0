"""`python -m agentd`: the command line."""

from agentd.cli.main import main

if __name__ == "__main__":
    main()
