"""Frames between the engine and LiteEth."""

from __future__ import annotations

from typing import Any

from migen import Cat, Signal


class FrameStream:
    """An AXI4-Stream of frames as signals, ``tdata`` of ``bits`` to ``tuser``."""

    def __init__(self, bits: int) -> None:
        self.tdata, self.tkeep = Signal(bits), Signal(bits // 8)
        self.tvalid, self.tready, self.tlast, self.tuser = Signal(), Signal(), Signal(), Signal()

    def from_liteeth(self, source: Any) -> list[Any]:
        """Statements that feed it from a LiteEth stream, whose ``last_be`` marks the last byte of the last word."""
        marks = source.last_be
        return [
            self.tvalid.eq(source.valid),
            source.ready.eq(self.tready),
            self.tdata.eq(source.data),
            self.tlast.eq(source.last),
            self.tkeep.eq(_up_to(marks)),
            self.tuser.eq(source.last & (source.error != 0)),
        ]

    def to_liteeth(self, sink: Any) -> list[Any]:
        """Statements that feed a LiteEth stream from it."""
        keep = self.tkeep
        return [
            sink.valid.eq(self.tvalid),
            self.tready.eq(sink.ready),
            sink.data.eq(self.tdata),
            sink.last.eq(self.tlast),
            *(
                sink.last_be[lane].eq(self.tlast & keep[lane] & (~keep[lane + 1] if lane + 1 < len(keep) else 1))
                for lane in range(len(keep))
            ),
        ]


def _up_to(marks: Any) -> Any:
    """Ones up to the marked lane; all ones without a mark: ``last_be`` is one-hot, or 0 before the last word."""
    return Cat(*((marks[:lane] == 0) if lane else 1 for lane in range(len(marks))))
