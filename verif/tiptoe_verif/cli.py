"""The command ``tiptoe``. Every mistake of a user, and every lack of the system, is one line and a non-zero exit."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from typer.core import TyperGroup

from .console import build_progress, console, errors
from .paths import BUILD, CACHE

if TYPE_CHECKING:
    pass


class OneLineErrors(TyperGroup):
    """Turns the errors meant for users into one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        from tiptoe_driver import DeviceError

        from .live.setup import UsageError
        from .native.harness import RuleBroken
        from .run.preload import ProgramError
        from .sim.toolchain import ToolError
        from .wire.monitor import WireError

        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except (UsageError, ToolError, DeviceError, RuleBroken, WireError, OSError) as error:
            errors.print(f"[bold red]error:[/] {escape(str(error).splitlines()[0])}")
            code = error.code if isinstance(error, ProgramError) else 2 if isinstance(error, UsageError) else 1
            raise typer.Exit(code) from None


app = typer.Typer(
    cls=OneLineErrors, no_args_is_help=True, pretty_exceptions_enable=False,
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata

        from tiptoe_driver.hardware import abi_gen as abi

        major, minor = (
            abi.VERSION_VALUE >> abi.VERSION_MAJOR_SHIFT,
            (abi.VERSION_VALUE & abi.VERSION_MINOR) >> abi.VERSION_MINOR_SHIFT,
        )
        print(f"tiptoe {importlib.metadata.version('tiptoe-engine')}, register map and rings {major}.{minor}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Tiptoe, a TCP offload engine: simulate it, carry real traffic over it, measure it, put it into a design."""


@app.command()
def demo(
    size: Annotated[int, typer.Option(help="Size of each download in KiB.", min=1)] = 2048,
    config: Annotated[str, typer.Option(help="Configuration of the engine (see: tiptoe info).")] = "sim",
    seed: Annotated[int, typer.Option(help="Of the data and, without TAP, of the lossy line.")] = 1,
    without_tap: Annotated[bool, typer.Option("--without-tap", help="Two engines against each other.")] = False,
) -> None:
    """Build the simulated engine, attach the driver, carry two HTTP downloads over it, and sum up.

    The peer is the Linux kernel's TCP in a network namespace; where there is no TAP interface, a second engine.

    Example: tiptoe demo --size 8192
    """
    from .choices import known_config
    from .demo import run_demo

    raise typer.Exit(run_demo(size=size * 1024, config=known_config(config), seed=seed, without_tap=without_tap))


Ip = Annotated[str, typer.Option(help="The engine's address.")]
Mac = Annotated[str, typer.Option(help="The engine's MAC address.")]
HostIp = Annotated[str, typer.Option(help="Address of the kernel's side of the TAP.")]
Ip6 = Annotated[str, typer.Option(help="The engine's IPv6 address, in a network of 64 bits (none: no IPv6).")]
HostIp6 = Annotated[str, typer.Option(help="IPv6 address of the kernel's side of the TAP.")]
Prefix = Annotated[int, typer.Option(help="Prefix length of the subnet.", min=8, max=30)]
Gateway = Annotated[str, typer.Option(help="Router for addresses beyond the subnet (none: they are out of reach).")]
Tap = Annotated[str, typer.Option(help="Name of the TAP interface.")]
Mtu = Annotated[
    int,
    typer.Option(
        help="Of the TAP and of the engine's interface; beyond 1500 the engine is built for it.", min=576, max=9000
    ),
]
Netns = Annotated[bool, typer.Option(help="Put the kernel's side into a network namespace of its own.")]
HostStack = Annotated[
    bool | None,
    typer.Option(help="A kernel with the engine's address carries what is not offloaded, answers ping and closed ports. "
                 "Default: if this system grants a namespace for it."),
]  # fmt: skip
Config = Annotated[str, typer.Option(help="Configuration of the engine (see: tiptoe info).")]
Width = Annotated[
    int, typer.Option(help="Bits of the frame and memory ports: 32, 64, 128, 256; 0: the configuration's.")
]
MemoryLatency = Annotated[int, typer.Option(help="Host memory latency in cycles.", min=1)]
TimeWait = Annotated[float, typer.Option(help="Length of TIME_WAIT in the engine, seconds.", min=0.001, max=524)]
Loss = Annotated[float, typer.Option(help="Probability that a frame is lost.", min=0, max=1)]
Reorder = Annotated[float, typer.Option(help="... that others overtake it.", min=0, max=1)]
Duplicate = Annotated[float, typer.Option(help="... that it arrives twice.", min=0, max=1)]
Corrupt = Annotated[float, typer.Option(help="... that a bit of it is inverted.", min=0, max=1)]
Delay = Annotated[float, typer.Option(help="Delay of every frame, milliseconds.", min=0)]
Jitter = Annotated[float, typer.Option(help="Random further delay, milliseconds.", min=0)]
Seed = Annotated[int, typer.Option(help="Of all of these.")]
Device = Annotated[
    str,
    typer.Option(metavar="URL", help="A board instead of the simulation: etherbone://HOST[:PORT] or uart:///dev/TTY[?baud=N]. "
                 "The engine has --ip there, 192.168.1.51 unless given, at the board's own socket."),
]  # fmt: skip
Pcap = Annotated[
    Path | None,
    typer.Option(help="Capture at the engine's port. Default: one in build/live, with a name of its own."),
]
Record = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Keep there what `tiptoe report` shows: the capture, states, windows, occupancy."
    ),
]


@app.command()
def live(
    context: typer.Context,
    listen: Annotated[
        list[str],
        typer.Option(metavar="PORT=TARGET", help="Relay offloaded connections to this port to HOST:PORT of this "
                     "machine, or to echo, discard, chargen. Repeatable."),
    ] = [],  # noqa: B006
    forward: Annotated[
        list[str],
        typer.Option(metavar="LOCALPORT=HOST:PORT", help="Carry connections to a local port through the engine to "
                     "HOST:PORT. Repeatable."),
    ] = [],  # noqa: B006
    ip: Ip = "10.77.0.2", mac: Mac = "02:00:00:00:00:02", host_ip: HostIp = "10.77.0.1", prefix: Prefix = 24,
    device: Device = "", gateway: Gateway = "", tap: Tap = "tiptoe0", mtu: Mtu = 1500, netns: Netns = False,
    config: Config = "sim", host_stack: HostStack = None, ip6: Ip6 = "", host_ip6: HostIp6 = "",
    memory_latency: MemoryLatency = 20, time_wait: TimeWait = 2.0,
    loss: Loss = 0.0, reorder: Reorder = 0.0, duplicate: Duplicate = 0.0, corrupt: Corrupt = 0.0,
    delay: Delay = 0.0, jitter: Jitter = 0.0, seed: Seed = 1, pcap: Pcap = None,
    record: Record = None,
    web: Annotated[bool, typer.Option("--web", help="Show the run in a browser of this machine, while it goes on.")] = False,
    web_port: Annotated[int, typer.Option(help="Port of the page; 0: any.", min=0, max=65535)] = 0,
    seconds: Annotated[float, typer.Option(help="End after so long; 0: with Ctrl-C.", min=0)] = 0.0,
) -> None:  # fmt: skip
    """Run the simulated engine on a TAP interface: stock servers and clients on either side, TCP in the engine.

    With --device, the engine on a board, driven from here.

    Example: tiptoe live --listen 80=127.0.0.1:8080 --loss 0.01
    """
    from .choices import capture_path, device_setup, live_setup, record_beside
    from .live.command import announce, keep_running
    from .live.device_session import DeviceSession
    from .live.session import LiveSession
    from .live.setup import UsageError, parse_forward, parse_listen

    setup = device_setup(context, device) if device else live_setup(
        ip=ip, mac=mac, host_ip=host_ip, prefix=prefix, gateway=gateway, tap=tap, mtu=mtu, netns=netns, config=config,
        host_stack=host_stack, ip6=ip6, host_ip6=host_ip6,
        memory_latency=memory_latency, time_wait=time_wait, seed=seed, delay=delay, jitter=jitter,
        pcap=capture_path("live", pcap, record), line=dict(loss=loss, reorder=reorder, duplicate=duplicate, corrupt=corrupt),
    )  # fmt: skip
    setup.listen = [parse_listen(text) for text in listen]
    setup.forward = [parse_forward(text) for text in forward]
    if not setup.listen and not setup.forward:
        raise UsageError("nothing to do: give --listen PORT=TARGET or --forward LOCALPORT=HOST:PORT")
    setup.stat = "live"
    setup.record = record or (record_beside(setup.pcap) if web and setup.pcap else None)
    with build_progress() as progress:
        session = DeviceSession(setup) if device else LiveSession(setup, progress)
    with session, contextlib.ExitStack() as beside:
        announce(session)
        if web and setup.record:
            from .report.server import WebPage

            console.print(f"  the page: {beside.enter_context(WebPage(setup.record, web_port)).url}", soft_wrap=True)
        keep_running(session, seconds)
    if session.recorder:
        why = f" ({session.recorder.why_ended})" if session.recorder.why_ended else ""
        console.print(f"[dim]tiptoe report[/] {setup.record}{why}", soft_wrap=True)


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    context: typer.Context,
    program: Annotated[list[str], typer.Argument(metavar="PROGRAM [ARGS]", help="What to run, after --.")],
    ip: Ip = "10.77.0.2", mac: Mac = "02:00:00:00:00:02", host_ip: HostIp = "10.77.0.1", prefix: Prefix = 24,
    device: Device = "", gateway: Gateway = "", tap: Tap = "tiptoe0", mtu: Mtu = 1500, netns: Netns = False,
    config: Config = "sim", host_stack: HostStack = None, ip6: Ip6 = "", host_ip6: HostIp6 = "",
    memory_latency: MemoryLatency = 20, time_wait: TimeWait = 2.0,
    loss: Loss = 0.0, reorder: Reorder = 0.0, duplicate: Duplicate = 0.0, corrupt: Corrupt = 0.0,
    delay: Delay = 0.0, jitter: Jitter = 0.0, seed: Seed = 1, pcap: Pcap = None,
    record: Record = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No announcement, no summary.")] = False,
) -> None:  # fmt: skip
    """Run a stock dynamic program whose TCP sockets are served by the engine; its exit code is ours.

    With --device, by the engine on a board.

    Example: tiptoe run -- curl http://10.77.0.1:8080/
    """
    from .choices import capture_path, device_setup, live_setup
    from .run.command import run_program

    setup = device_setup(context, device) if device else live_setup(
        ip=ip, mac=mac, host_ip=host_ip, prefix=prefix, gateway=gateway, tap=tap, mtu=mtu, netns=netns, config=config,
        host_stack=host_stack, ip6=ip6, host_ip6=host_ip6,
        memory_latency=memory_latency, time_wait=time_wait, seed=seed, delay=delay, jitter=jitter,
        pcap=capture_path("run", pcap, record), line=dict(loss=loss, reorder=reorder, duplicate=duplicate, corrupt=corrupt),
    )  # fmt: skip
    setup.stat = f"run {program[0]}"
    setup.record = record
    raise typer.Exit(run_program(setup, program, quiet=quiet))


@app.command()
def stat(
    pid: Annotated[int | None, typer.Option(help="Of the session, when several are running.", min=1)] = None,
    watch: Annotated[
        float, typer.Option(metavar="SECONDS", help="Refresh so often, with rates; Ctrl-C ends.", min=0)
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="The snapshot itself, a line of JSON.")] = False,
) -> None:
    """Device and connections of a running `tiptoe live` or `tiptoe run`: bytes, RTT, windows, retransmissions.

    Example: tiptoe stat --watch 1
    """
    from .stat import show

    raise typer.Exit(show(console, pid, watch, as_json))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of --record, or a capture alone.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The page. Default: report.html in the folder, NAME.html beside a capture."),
    ] = None,
    frames: Annotated[int, typer.Option(help="Frames in it at most: the last ones.", min=1)] = 20_000,
    size: Annotated[
        int, typer.Option("--bytes", help="Bytes of each frame in it; the headers are 54 and more.", min=54)
    ] = 160,
) -> None:
    """One HTML file of a run, for a browser: sequence graphs, states, windows, occupancy, events, each segment's bytes.

    Example: tiptoe report build/live/run
    """
    from .report.command import report as make

    make(console, run, out, kept=frames, frame_bytes=size)


@app.command()
def waves(
    waveform: Annotated[Path, typer.Argument(metavar="FILE", help="A waveform of the engine (.fst or .vcd).")],
    cycle: Annotated[int | None, typer.Option(help="Put the cursor there.", min=0)] = None,
    viewer: Annotated[str, typer.Option(help="surfer or gtkwave. Default: whichever is installed.")] = "",
) -> None:
    """Open a waveform with a prepared view of a segment's way through the engine.

    Example: tiptoe waves build/script/waves.fst --cycle 12345
    """
    from .report.command import open_waves

    raise typer.Exit(open_waves(console, waveform, cycle, viewer))


@app.command()
def fuzz(
    seed: Annotated[int, typer.Option(help="Of every choice.")] = 1,
    frames: Annotated[int, typer.Option(help="How many the engine gets.", min=1)] = 10_000,
    config: Annotated[str, typer.Option(help="Configuration of the engine (see: tiptoe info).")] = "tiny",
    runs: Annotated[int, typer.Option(help="Runs for making a finding short; 0: as it is.", min=0)] = 300,
    cookies: Annotated[bool, typer.Option("--cookies", help="The engine sends SYN cookies.")] = False,
) -> None:
    """Peers without manners against the whole engine, in all states of TCP, beside a connection whose data must pass.

    Ends with status 1, the shortest sequence found and its capture, at the first word of the wire monitor or the bus rules, wrong
    byte, lost id, fault that the driver counts, or when the engine does not fall silent.

    Example: tiptoe fuzz --seed 7 --frames 100000
    """
    from .choices import known_config
    from .fuzz.command import run_fuzz

    raise typer.Exit(run_fuzz(known_config(config), seed, frames, runs, console, cookies))


@app.command()
def script(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE.pkt|FOLDER", help="Scripts, or folders of them.")],
    config: Annotated[
        str, typer.Option(help="Configuration of the engine (see: tiptoe info). Default: tiny with time stamps.")
    ] = "",
    tolerance: Annotated[
        int, typer.Option(metavar="MICROSECONDS", help="0: the scripts' own --tolerance_usecs, or 4000.", min=0)
    ] = 0,
    lenient: Annotated[
        bool,
        typer.Option(
            "--lenient", help="For scripts of another stack: P may be there or not, window updates may come besides."
        ),
    ] = False,
    pcap: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep every capture there; without, those of failures.")
    ] = None,
    trace: Annotated[
        bool,
        typer.Option("--trace", help="A waveform of each failure, beside its capture; with --record, of each script."),
    ] = False,
    record: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep what `tiptoe report` shows there, a folder a script.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="What of a script was ignored.")] = False,
) -> None:
    """Run packet scripts (packetdrill's language) on the simulated engine, in simulated time.

    Status 1: a script has failed, or cannot be read.

    Example: tiptoe script tests/scripts --tolerance 2000
    """
    from .choices import sized_config
    from .script.command import DEFAULT, run_scripts

    code = run_scripts(
        paths, sized_config(config, 0, 1500) if config else DEFAULT, console, pcap=pcap, trace=trace,
        tolerance_us=tolerance or None, lenient=lenient, verbose=verbose, record=record,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def serve(
    path: Annotated[Path | None, typer.Option("--socket", help="Unix socket to make, the user's alone.")] = None,
    port: Annotated[
        int | None, typer.Option(help="TCP port of the loopback interface instead; 0: a free one.", min=0, max=65535)
    ] = None,
    peer: Annotated[
        str,
        typer.Option(
            help="At the other end of the line: echo, an engine that echoes at port 7; none, the client's SEND and TAKE; "
            "tap, this machine."
        ),
    ] = "echo",
    config: Config = "tiny",
    memory_latency: MemoryLatency = 20,
    seed: Annotated[int, typer.Option(help="Of all chance.")] = 1,
    pcap: Annotated[Path | None, typer.Option(help="Capture at the engine's port.")] = None,
    clients: Annotated[int, typer.Option(help="End after so many; 0: with Ctrl-C.", min=0)] = 0,
) -> None:
    """The simulated engine behind a socket, for a driver of your own in any language: docs/seam.md has the messages.

    Example: tiptoe serve --socket /tmp/engine --pcap build/engine.pcap
    """
    from .choices import known_config
    from .serve.command import serve as run_serve

    code = run_serve(
        console, path=path, port=port, peer=peer, config=known_config(config), pcap=pcap, seed=seed,
        memory_latency=memory_latency, clients=clients,
    )  # fmt: skip
    raise typer.Exit(code)


@app.command()
def bench(
    only: Annotated[
        list[str],
        typer.Option(
            metavar="GROUP",
            help="throughput, segments, latency, floods, speed; or goodput, which is not measured unless asked for; repeatable.",
        ),
    ] = [],  # noqa: B006
    config: Annotated[str, typer.Option(help="Configuration of the engine (see: tiptoe info).")] = "sim",
    width: Width = 0,
    mtu: Annotated[
        int, typer.Option(help="Longest packet: full segments have 40 bytes less.", min=1500, max=9000)
    ] = 1500,
    quick: Annotated[bool, typer.Option("--quick", help="A few frames only; no comparison with the baseline.")] = False,
    update_baseline: Annotated[bool, typer.Option("--update-baseline", help="Keep the figures as baseline.")] = False,
) -> None:
    """Figures in cycles with their theoretical bounds, compared with the baseline (build/bench.json).

    Example: tiptoe bench --only throughput --only latency
    """
    from .benchmarks.command import ALL, USUAL
    from .benchmarks.command import bench as run_bench
    from .choices import sized_config
    from .live.setup import UsageError

    if unknown := [group for group in only if group not in ALL]:
        raise UsageError(f"no group of figures {unknown[0]!r}: there are {', '.join(ALL)}")
    chosen = sized_config(config, width, mtu)
    raise typer.Exit(run_bench(chosen, only or USUAL, quick=quick, update=update_baseline))


@app.command("verilog")
def verilog_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; files there of the same names are overwritten.")],
    config: Annotated[str, typer.Option(help="Configuration of the engine (see: tiptoe info).")] = "ecp5",
    width: Width = 0,
    mtu: Annotated[int, typer.Option(help="Longest packet that it carries.", min=1500, max=9000)] = 1500,
    connections: Annotated[int, typer.Option(help="Connection ids; 0: the configuration's.", min=0)] = 0,
    queues: Annotated[
        bool, typer.Option("--queues", help="With a queue of whole frames each way, for a MAC that waits for nobody.")
    ] = False,
    per_module: Annotated[bool, typer.Option("--per-module", help="A file a module, not one for all.")] = False,
    mhz: Annotated[
        float, typer.Option(help="Clock rate, for the constraints and the tick of TCP's timers.", min=1, max=2000)
    ] = 125.0,
    name: Annotated[
        str, typer.Option(help="Of the Verilog module: engines of different choices in one design need different ones.")
    ] = "",
) -> None:
    """Verilog of the engine with its registers, constraints and notes, for a design of your own.

    Example: tiptoe verilog --config ecp5 --connections 256 --queues -o build/verilog
    """
    from .choices import sized_config, valid
    from .export import Choice, export

    chosen = sized_config(config, width, mtu)
    sizes = {"tick_cycles": round(mhz * 1000)} | ({"connections": connections} if connections else {})
    choice = valid(
        lambda: Choice(config=chosen.with_(**sizes), queues=queues, per_module=per_module, mhz=mhz, name=name)
    )
    written = export(choice, out)
    console.print(f"{choice.top}: {len(written)} files, {out}/README.md says what they are", soft_wrap=True)


@app.command()
def info() -> None:
    """Configurations of the engine.

    Example: tiptoe info
    """
    from rich.table import Table

    from tiptoe_hdl.config import CONFIGS

    table = Table(box=None, pad_edge=False)
    for heading in ("configuration", "connections", "listeners", "half-open", "data bits", "receive buffer"):
        table.add_column(heading, justify="left" if heading == "configuration" else "right")
    for name, entry in CONFIGS.items():
        table.add_row(
            name, f"{entry.connections:,}", str(entry.listeners), f"{entry.syncache_entries:,}",
            str(entry.data_width), f"{entry.rx_buffer_bytes:,}",
        )  # fmt: skip
    console.print(table)


@app.command()
def doctor() -> None:
    """What this system has and lacks for Tiptoe, and how to install it. Status 1: no simulation can run.

    Example: tiptoe doctor
    """
    from .doctor import examine, make_table, verdict

    findings = list(examine())
    console.print(make_table(findings))
    console.print(f"\ncache:  {CACHE}\noutput: {BUILD}\n", soft_wrap=True, highlight=False)
    status, sentence = verdict(findings)
    console.print(sentence, style="bold" if status else "")
    raise typer.Exit(status)
