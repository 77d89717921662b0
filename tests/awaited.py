"""A blocking client in the shape of an asynchronous one, so that one program serves both.

Rules of this file: nothing here gives way: what is awaited is done when it is called.
"""


class AwaitedItems:
    """An iterator in the shape of an asynchronous one."""

    def __init__(self, items):
        self._items = iter(items)

    def __aiter__(self):
        return self

    async def __anext__(self):
        for item in self._items:
            return item
        raise StopAsyncIteration


class AwaitedStream:
    """A stream in the shape of an asynchronous one."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        value = getattr(self._stream, name)
        if name in ("lines", "json_lines", "events", "chat"):
            return lambda **options: AwaitedItems(value(**options))
        return value

    def __aiter__(self):
        return AwaitedItems(self._stream)

    async def __aenter__(self):
        self._stream.__enter__()
        return self

    async def __aexit__(self, *failure):
        self._stream.__exit__(*failure)

    async def aclose(self):
        self._stream.close()


class Awaited:
    """A blocking client in the shape of an asynchronous one."""

    def __init__(self, client):
        self.client = client

    def __getattr__(self, name):
        function = getattr(self.client, name)
        if "stream" in name:
            return lambda *args, **options: AwaitedStream(function(*args, **options))

        async def called(*args, **options):
            return function(*args, **options)

        return called


def run_plainly(coroutine):
    """The result of a coroutine that does not give way."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a blocking client does not give way")
