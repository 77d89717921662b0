"""The parts of the command line; ``cli.main`` holds them together.

::

    arguments.py   what may be written: the commands, their flags, their help
    settings.py    flags and environment -> Config, and the command `config`
    requests.py    get, post, put, patch, delete, upload, download
    live.py        stream, chat
    signed.py      sign
    emulate.py     emulator
    demo.py        demo: the whole job, as a table of steps
    faults_demo.py demo --faults: what goes wrong, and how it is survived, as another
    walk.py        steps that check themselves, run in order and shown
    through.py     blocking code over each driver
    failures.py    an error -> what is told about it, and the exit code
    screen.py      stdout and stderr, in colour where people look at them

Rules that hold in all of them: results go to stdout, all else to stderr; a command is a function of the
parsed arguments and the screen that returns an exit code; rich is imported only when it is about to be used,
and nothing depends on it; what came from elsewhere is shown with its control characters escaped.
"""
