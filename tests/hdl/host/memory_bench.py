"""Host memories at their two slave ports: bursts of a master, transfers of a host."""

from tiptoe_hdl.host.axi import Response


class Master:
    """One master's bursts at the AXI side; the bytes that must be there."""

    def __init__(self, dut, rng, low, high, size):
        self.read_port, self.write_port, self.rng = dut.s_axi_read, dut.s_axi_write, rng
        self.low, self.high = low, high
        self.size, self.model = size, bytearray(size)

    def burst(self):
        words = self.rng.choice((1, 2, 3, 8, 20))
        return self.rng.randrange(self.low // 8, self.high // 8 - words + 1) * 8, words

    async def idle(self, ctx, stall):
        while self.rng.random() < stall:
            await ctx.tick()

    async def write(self, ctx, address, words, stall=0.0):
        bus = self.write_port
        ctx.set(bus.awaddr, address)
        ctx.set(bus.awlen, words - 1)
        ctx.set(bus.awvalid, 1)
        await ctx.tick().until(bus.awready)
        ctx.set(bus.awvalid, 0)
        for number in range(words):
            await self.idle(ctx, stall)
            data, strobe = self.rng.getrandbits(64), self.rng.choice((0xFF, 0xFF, 0x0F, 0xE0, 0))
            ctx.set(bus.wdata, data)
            ctx.set(bus.wstrb, strobe)
            ctx.set(bus.wlast, number == words - 1)
            ctx.set(bus.wvalid, 1)
            await ctx.tick().until(bus.wready)
            ctx.set(bus.wvalid, 0)
            for lane in range(8):
                if strobe >> lane & 1 and address < self.size:
                    self.model[address + 8 * number + lane] = data >> 8 * lane & 0xFF
        await self.idle(ctx, stall)
        ctx.set(bus.bready, 1)
        (response,) = await ctx.tick().sample(bus.bresp).until(bus.bvalid)
        ctx.set(bus.bready, 0)
        return response

    async def read(self, ctx, address, words, stall=0.0):
        bus = self.read_port
        ctx.set(bus.araddr, address)
        ctx.set(bus.arlen, words - 1)
        ctx.set(bus.arvalid, 1)
        await ctx.tick().until(bus.arready)
        ctx.set(bus.arvalid, 0)
        data, responses = b"", set()
        for number in range(words):
            await self.idle(ctx, stall)
            ctx.set(bus.rready, 1)
            word, last, response = await ctx.tick().sample(bus.rdata, bus.rlast, bus.rresp).until(bus.rvalid)
            ctx.set(bus.rready, 0)
            assert last == (number == words - 1)
            data += word.to_bytes(8, "little")
            responses.add(response)
        return data, responses


def write_and_read_behind(master, bursts, stall):
    """Two testbenches: so many bursts written into halves of the master's share in turn, and each read while the next is
    written, in the other half. Both end."""
    span, written = master.high, []

    async def engine_writes(ctx):
        for number in range(bursts):
            master.low = number % 2 * span // 2  # apart from the burst that is being read
            master.high = master.low + span // 2
            address, words = master.burst()
            assert await master.write(ctx, address, words, stall) == Response.OKAY
            written.append((address, words, bytes(master.model[address : address + 8 * words])))
            while len(written) > 1:
                await ctx.tick()
        written.append(None)

    async def engine_reads(ctx):
        while True:
            while not written:
                await ctx.tick()
            if written[0] is None:
                return
            address, words, expected = written[0]
            assert await master.read(ctx, address, words, stall) == (expected, {Response.OKAY})
            written.pop(0)

    return engine_writes, engine_reads


async def host_access(ctx, port, address, *, data=None, select=0xF):
    """One transfer of the host; returns the word read."""
    ctx.set(port.adr, address // 4)
    ctx.set(port.we, data is not None)
    ctx.set(port.dat_w, data or 0)
    ctx.set(port.sel, select)
    ctx.set(port.cyc, 1)
    ctx.set(port.stb, 1)
    (word,) = await ctx.tick().sample(port.dat_r).until(port.ack)
    ctx.set(port.cyc, 0)
    ctx.set(port.stb, 0)
    return word
