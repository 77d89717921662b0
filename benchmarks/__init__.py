"""Speed, measured side by side: `python -m benchmarks` from a checkout, with the extra `bench` installed.

What keeps the numbers honest:

- Every contender does the same work: a request signed with AGENTRUN4 by one shared, efficient signer, the
  JSON of the answer parsed, timeouts on. Where one does less (the limit, `urllib3 plain`), its name says so.
- Every contender lives in a process of its own, started once per section and kept. Rounds are interleaved (A
  B C, A B C, ...), so that noise falls on all alike.
- The client is pinned to one core and the server to another where there are two. The server is a small C
  program (`server.c`), built on the spot; where that cannot be, a Python one stands in and the output says
  so.
- The main figure is the client's CPU time, user and system, per call. Who is not installed, and who failed,
  is named in the output; nobody is dropped in silence.

The rooms: `sections` says what is measured, `contenders` who is, `worker` is the process that a contender
lives in, `runner` plays the rounds, `results` holds and computes the figures, `report` and `plot` show them,
`summary` holds several runs against the bars. Under TLS it is nginx that answers (`tls_server`).
`footprint` measures what needs no server: start-up and dependencies. `big_files` is a command of its own:
what a gibibyte leaves in memory, sends over the wire when it is cut, and holds up.
"""
