"""CUBIC as RFC 9438 writes it, in floating point: segments and seconds."""

from dataclasses import dataclass

BETA, C = 0.7, 0.4
ALPHA = 3 * (1 - BETA) / (1 + BETA)


@dataclass
class Cubic:
    """One sender; ``cwnd`` in segments. ``ack`` is one acknowledgement of ``segments`` in congestion avoidance at time
    ``now``."""

    cwnd: float
    w_max: float = 0.0
    cwnd_prior: float = 0.0
    epoch: float | None = None
    from_timeout: bool = True
    k: float = 0.0
    w_est: float = 0.0

    def loss(self, flight: float) -> None:
        """Sections 4.6 and 4.7."""
        self.w_max = self.cwnd * (1 + BETA) / 2 if self.cwnd < self.w_max else self.cwnd
        self.cwnd_prior = self.cwnd
        self.cwnd = max(flight * BETA, 2)
        self.epoch, self.from_timeout = None, False

    def timeout(self, ssthresh_cwnd: float) -> None:
        """Section 4.8; slow start has brought cwnd to ``ssthresh_cwnd`` again."""
        self.cwnd_prior, self.cwnd = self.cwnd, ssthresh_cwnd
        self.epoch, self.from_timeout = None, True

    def window(self, t: float) -> float:
        return C * (t - self.k) ** 3 + self.w_max

    def ack(self, segments: float, now: float, rtt: float) -> None:
        """Sections 4.2 to 4.5."""
        if self.epoch is None:
            self.epoch = now
            if self.from_timeout or self.w_max < self.cwnd:
                self.w_max, self.k = self.cwnd, 0.0
            else:
                self.k = ((self.w_max - self.cwnd) / C) ** (1 / 3)
            self.w_est = self.cwnd
        t = now - self.epoch
        self.w_est += (ALPHA if self.w_est < self.cwnd_prior else 1) * segments / self.cwnd
        if self.window(t) < self.w_est:
            self.cwnd = max(self.cwnd, self.w_est)
            return
        target = min(max(self.window(t + rtt), self.cwnd), 1.5 * self.cwnd)
        self.cwnd += segments * (target - self.cwnd) / self.cwnd
