"""What may be written after ``agentrun-data``, and the help that teaches it.

Rules of this file: the commands are a table; every command has examples, and each works as it is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import indent
from typing import Any

from agentrun_proto import __version__

from .demo import demo
from .emulate import emulate
from .live import chat, stream
from .requests import download, header_field, query_pair, send, sha256_digits, upload
from .screen import Screen
from .settings import add_flags, show_config
from .signed import sign
from .through import DRIVERS

PROGRAM = "agentrun-data"

OVERVIEW = """\
AgentRun's data plane from a shell: requests are signed, JSON goes in and out.

  agentrun-data demo                    see it all work, without an account
  agentrun-data demo --faults           see what becomes of it when things go wrong
  agentrun-data config                  see what is in force, and where it comes from
  agentrun-data get resources           send a first request"""

ENDING = """\
credentials and where to, from the environment:
  AGENTRUN_ACCESS_KEY_ID, AGENTRUN_ACCESS_KEY_SECRET, AGENTRUN_SECURITY_TOKEN
                         an access key; the ALIBABA_CLOUD_... names work too
  AGENTRUN_ACCOUNT_ID, AGENTRUN_REGION
                         the account and its region; the FC_... names work too
  AGENTRUN_DATA_ENDPOINT a URL instead of the one that follows from these two

exit codes:
  0  done
  1  refused by the service, or its answer makes no sense; in `demo`, a step failed
  2  misuse: a flag, a value, a setting or a local file
  3  network: no connection, no answer in time, or only part of one
  130, 141  interrupted by Ctrl-C; nobody reads the output any more

`agentrun-data COMMAND --help` has each command's flags, with examples."""

PATH_HELP = "relative to the namespace, such as resources/r-1; may hold a query"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command: how it is written, what it is for, what it takes, what it does."""

    name: str
    usage: str
    summary: str
    description: str
    examples: str
    takes: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Screen], int]


def _path(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help=PATH_HELP)


def _fields(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--query",
        metavar="NAME=VALUE",
        type=query_pair,
        action="append",
        default=[],
        help="a query parameter, added to PATH's or put in its place; a name given again is repeated",
    )
    parser.add_argument(
        "--header",
        metavar="'NAME: VALUE'",
        type=header_field,
        action="append",
        default=[],
        help="a header; may be repeated",
    )


def _data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        metavar="JSON|@FILE|-",
        help="the content: JSON as it stands here, of a file, or of stdin (-); "
        "anything else needs its --header 'Content-Type: ...'",
    )


def _without_content(parser: argparse.ArgumentParser) -> None:
    _path(parser)
    _fields(parser)
    add_flags(parser)


def _with_content(parser: argparse.ArgumentParser) -> None:
    _path(parser)
    _data(parser)
    _fields(parser)
    add_flags(parser)


def _upload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("local", metavar="FILE", help="the file to send")
    _path(parser)
    parser.add_argument(
        "--target",
        metavar="REMOTE",
        help="where the service is to put it; sent as the form's field `path` (default: the file's own name)",
    )
    _fields(parser)
    add_flags(parser)


def _download(parser: argparse.ArgumentParser) -> None:
    _path(parser)
    parser.add_argument("save_as", metavar="FILE", help="where to save it, whole or not at all")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep what has arrived beside FILE if it breaks off, and go on from there when it is run again",
    )
    parser.add_argument(
        "--sha256", metavar="HEX", type=sha256_digits, help="the checksum that the content must have"
    )
    _fields(parser)
    add_flags(parser)


def _stream(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", metavar="METHOD", nargs="?", default="GET", help="default: GET")
    _path(parser)
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--events",
        action="store_true",
        help="show server-sent events, each as JSON on a line: its type, id and data",
    )
    how.add_argument("--lines", action="store_true", help="show text, whole lines at a time")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="with --events: when the stream ends, take it up again after the last event, until the service "
        "says that there are no more",
    )
    _data(parser)
    _fields(parser)
    add_flags(parser)


def _chat(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runtime", metavar="RUNTIME", help="the agent runtime's name")
    parser.add_argument(
        "message", metavar="MESSAGE", nargs="?", help="what to say; without it, stdin, or a conversation"
    )
    parser.add_argument("--model", metavar="NAME", help="which model answers; a runtime may insist on it")
    parser.add_argument(
        "--endpoint-name",
        metavar="NAME",
        help="the runtime's endpoint (default: Default)",
    )
    parser.add_argument(
        "--super-agent", action="store_true", help="RUNTIME is a super agent's: it keeps the conversation"
    )
    add_flags(parser, namespace=False)


def _sign(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("method", metavar="METHOD", help="such as GET")
    parser.add_argument("target", metavar="PATH|URL", help="as for the requests, or a URL of the endpoint")
    parser.add_argument("--curl", action="store_true", help="print the curl command that sends the request")
    _data(parser)
    _fields(parser)
    add_flags(parser)


def _emulator(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", metavar="N", type=_port, default=0, help="the port (default: a free one)")
    parser.add_argument("--folder", metavar="DIR", help="keep everything here, and find it again next time")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--faults",
        action="store_true",
        help="walk through what can go wrong instead, and how it is survived",
    )
    parser.add_argument(
        "--driver",
        choices=sorted(DRIVERS),
        default="blocking",
        help="what carries the calls (default: blocking; trio needs the extra of that name)",
    )


_OUTPUT = "The JSON of the answer goes to stdout: coloured on a terminal, on one line elsewhere."

COMMANDS = (
    Command(
        name="get",
        usage="PATH [--query NAME=VALUE] [...]",
        summary="read something",
        description=f"Sends GET. {_OUTPUT}",
        examples="""\
agentrun-data get resources
agentrun-data get 'resources?page=1' --query limit=10
agentrun-data get sb-1/processes --namespace sandboxes
agentrun-data get resources | jq -r '.data.items[].name'""",
        takes=_without_content,
        run=send,
    ),
    Command(
        name="post",
        usage="PATH [--data JSON|@FILE|-] [...]",
        summary="create something, or have something done",
        description=f"Sends POST. {_OUTPUT}",
        examples="""\
agentrun-data post resources --data '{"name": "first"}'
agentrun-data post resources --data @resource.json
agentrun-data post / --namespace sandboxes --data '{"templateName": "python"}'
echo '{"code": "1 + 1"}' | agentrun-data post contexts/execute --data - --namespace sandboxes/sb-1""",
        takes=_with_content,
        run=send,
    ),
    Command(
        name="put",
        usage="PATH [--data JSON|@FILE|-] [...]",
        summary="replace something",
        description=f"Sends PUT. {_OUTPUT}",
        examples="""agentrun-data put resources/r-1 --data '{"name": "second"}'""",
        takes=_with_content,
        run=send,
    ),
    Command(
        name="patch",
        usage="PATH [--data JSON|@FILE|-] [...]",
        summary="change a part of something",
        description=f"Sends PATCH. {_OUTPUT}",
        examples="""agentrun-data patch resources/r-1 --data '{"description": "better"}'""",
        takes=_with_content,
        run=send,
    ),
    Command(
        name="delete",
        usage="PATH [...]",
        summary="delete something",
        description=f"Sends DELETE. {_OUTPUT}",
        examples="agentrun-data delete resources/r-1",
        takes=_without_content,
        run=send,
    ),
    Command(
        name="upload",
        usage="FILE PATH [--target REMOTE] [...]",
        summary="send a local file",
        description="Sends FILE to PATH as a form, however large it is, with a progress bar on a terminal.",
        examples="""\
agentrun-data upload report.csv files --target /data/report.csv
agentrun-data upload main.py filesystem/upload --target /tmp/main.py --namespace sandboxes/sb-1""",
        takes=_upload,
        run=upload,
    ),
    Command(
        name="download",
        usage="PATH FILE [--resume] [--sha256 HEX] [...]",
        summary="save something as a local file",
        description="Saves what is at PATH as FILE, with a progress bar on a terminal. A connection that "
        "breaks is made again, and the rest asked for. Until it has arrived whole, a FILE that is there "
        "already stays as it is.",
        examples="""\
agentrun-data download files report.csv --query path=/data/report.csv
agentrun-data download 'files?path=/data/report.csv' report.csv --resume
agentrun-data download recordings/demo.mkv demo.mkv --namespace sandboxes/sb-1""",
        takes=_download,
        run=download,
    ),
    Command(
        name="stream",
        usage="[METHOD] PATH [--events [--resume] | --lines] [...]",
        summary="show an answer while it arrives",
        description="Sends a request, and shows what comes as soon as it is there, byte for byte unless "
        "--events or --lines is given; on a terminal, as text that cannot command it. --timeout bounds each "
        "silence, not the whole. The emulator has `events` and `lines` to try it with.",
        examples="""\
agentrun-data stream files --query path=/data/report.csv | head -n 1
agentrun-data stream 'lines?count=3' --lines
agentrun-data stream 'events?count=3' --events --resume
agentrun-data stream GET events --events | jq -r .data
agentrun-data stream POST contexts/execute --data '{"code": "1 + 1"}' --namespace sandboxes/sb-1""",
        takes=_stream,
        run=stream,
    ),
    Command(
        name="chat",
        usage="RUNTIME [MESSAGE] [--model NAME] [...]",
        summary="talk to an agent runtime",
        description="Says MESSAGE, or what stdin holds, to an agent runtime that speaks OpenAI's protocol, "
        "and types its answer as it comes; or to a super agent. On a terminal and without MESSAGE, it is a "
        "conversation: a line is a message, Ctrl-D ends it.",
        examples="""\
agentrun-data chat my-agent 'Why is the sky blue?' --model qwen-max
agentrun-data chat my-agent --model qwen-max --endpoint-name Default 'Why is the sky blue?'
agentrun-data chat my-super-agent --super-agent 'Plan a journey to Hangzhou'
echo 'Why is the sky blue?' | agentrun-data chat my-agent --model qwen-max""",
        takes=_chat,
        run=chat,
    ),
    Command(
        name="sign",
        usage="METHOD PATH|URL [--curl] [...]",
        summary="show the headers that authorise a request, and send nothing",
        description="Prints the headers of a request, its signature among them. Whoever has them can send "
        "the request for as long as the service accepts its date; the secret is not in them.",
        examples="""\
agentrun-data sign GET resources
agentrun-data sign GET resources --curl | sh
agentrun-data sign POST resources --data '{"name": "first"}' --curl
agentrun-data sign DELETE https://123-ram.agentrun-data.cn-hangzhou.aliyuncs.com/sandboxes/sb-1""",
        takes=_sign,
        run=sign,
    ),
    Command(
        name="config",
        usage="[...]",
        summary="show what is in force, and where each value comes from",
        description="Shows each setting, and whether a flag, an environment variable or a default set it. "
        "Secrets are masked. Sends nothing.",
        examples="""\
agentrun-data config
agentrun-data config --region cn-beijing --namespace sandboxes/sb-1""",
        takes=add_flags,
        run=show_config,
    ),
    Command(
        name="emulator",
        usage="[--port N] [--folder DIR]",
        summary="run the service, small, on this machine",
        description="Serves the data plane on 127.0.0.1 until Ctrl-C, and checks signatures as the service "
        "does. Prints the variables that make a client use it.",
        examples="""\
agentrun-data emulator
agentrun-data emulator --port 8077 --folder ./agentrun-data""",
        takes=_emulator,
        run=emulate,
    ),
    Command(
        name="demo",
        usage="[--faults] [--driver asyncio|blocking|trio]",
        summary="see the whole job done and checked, without an account",
        description="Starts an emulator on a free port and walks through the job with signed requests: "
        "create, list, patch, read, two that are refused, 20 MB up and down, a chat, delete. "
        "With --faults, things go wrong on demand: a clock is off, a token expires, the service is busy, "
        "connections break, a redirect leads elsewhere. Each step checks what it gets. Leaves nothing "
        "behind; ends with 1 if anything is not as it should be.",
        examples="""\
agentrun-data demo
agentrun-data demo --faults
agentrun-data demo --driver asyncio""",
        takes=_demo,
        run=demo,
    ),
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; ``run`` among what it parses is the command's function."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} COMMAND [...]",
        description=OVERVIEW,
        epilog=ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(
        title="commands", prog=PROGRAM, metavar="COMMAND", dest="command", parser_class=_Parser
    )
    for command in COMMANDS:
        own = commands.add_parser(
            command.name,
            usage=f"{PROGRAM} {command.name} {command.usage}".rstrip(),
            help=command.summary,
            description=command.description,
            epilog="examples:\n" + indent(command.examples, "  "),
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        command.takes(own)
        own.set_defaults(run=command.run)
    return parser


class _Parser(argparse.ArgumentParser):
    """Takes flags before, after and between positional arguments, those that may be left out too."""

    _inner = False

    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]  # it takes what all overloads do
        self, args: Any = None, namespace: Any = None
    ) -> Any:
        # Left to itself, argparse takes an optional one for missing where a flag stands before it.
        if self._inner:
            return super().parse_known_args(args, namespace)
        self._inner = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inner = False


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the examples, and fills the paragraphs before them."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return super()._fill_text(text, width, indent)
        return argparse.HelpFormatter._fill_text(self, text, width, indent)
