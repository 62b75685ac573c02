"""One HTTP/2 connection with requests side by side; httpx' own waits for itself when several uploads are held up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events


@dataclass
class Answer:
    status: int = 0
    body: bytes = b""
    reset: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Http2Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._answers: dict[int, Answer] = {}
        self._moved = asyncio.Condition()
        self._flush()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, port: int) -> Http2Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def post(self, path: str, body: bytes) -> Answer:
        """The whole answer, or whether it was reset; the rest of the body is not sent after that."""
        number = self._h2.get_next_available_stream_id()
        answer = self._answers[number] = Answer()
        named = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "test")]
        self._h2.send_headers(number, named)
        self._flush()
        sending = asyncio.create_task(self._send(number, body, answer))
        try:
            await answer.ended.wait()
        finally:
            if not sending.done():
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
                self._h2.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
                self._flush()
        return answer

    async def _send(self, number: int, body: bytes, answer: Answer) -> None:
        while body:
            async with self._moved:
                await self._moved.wait_for(lambda: self._h2.local_flow_control_window(number) > 0)
            size = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size, len(body))
            self._h2.send_data(number, body[:size])
            body = body[size:]
            self._flush()
        self._h2.end_stream(number)
        self._flush()

    async def _read(self) -> None:
        while data := await self._reader.read(65536):
            for event in self._h2.receive_data(data):
                number = getattr(event, "stream_id", 0) or 0
                answer = self._answers.get(number)
                if answer is None:
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    answer.status = int({str(name): value for name, value in event.headers}[":status"])
                elif isinstance(event, h2.events.DataReceived):
                    answer.body += event.data
                    self._h2.acknowledge_received_data(event.flow_controlled_length, number)
                elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    answer.reset = isinstance(event, h2.events.StreamReset)
                    answer.ended.set()
            self._flush()
            async with self._moved:
                self._moved.notify_all()
        for answer in self._answers.values():
            answer.reset = answer.reset or not answer.ended.is_set()
            answer.ended.set()

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())

    async def close(self) -> None:
        self._writer.close()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
