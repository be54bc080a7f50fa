// The graphs: panels one above the other on one time axis, as Plotly takes them.

// Colours of Okabe and Ito, which the colour-blind can tell apart; lines differ in their dashes, too.
const LIGHT = { ink: "#1d2830", soft: "#5b6872", grid: "#e3e8ec", back: "#ffffff", blue: "#0072b2", red: "#d55e00", green: "#009e73",
  orange: "#b87a00", purple: "#a8578a", grey: "#8795a0", choice: "#d55e00" };
const DARK = { ink: "#e4eaee", soft: "#a0adb7", grid: "#2b343b", back: "#14191d", blue: "#56b4e9", red: "#ff8a3d", green: "#2fc79b",
  orange: "#e8b23a", purple: "#dd94c1", grey: "#7d8a94", choice: "#ff8a3d" };
const GAP = 46, UNIT = 118, BELOW = 46;  // pixels: above a panel for its title, of a panel of weight 1, below all
const ROWS = 12;  // connections in the panel of states

function line(name, x, y, colour, more = {}) {
  return { type: "scatter", mode: "lines", name, x, y, line: { color: colour, width: 1.6, ...(more.line || {}) },
    ...Object.fromEntries(Object.entries(more).filter(([key]) => key !== "line")) };
}

function sequencePanel(run, colours) {
  const s = sequenceSeries(run.frames, run.connection, run.forward, run.seconds);
  const at = (what) => `${what} %{y:,}<br>frame %{customdata}<extra></extra>`;
  const step = { shape: "hv" };
  return { title: "Sequence numbers", unit: "bytes", weight: 3.2, traces: [
    line("window", s.edges.x, s.edges.y, colours.grey, { line: { ...step, width: 1.1, dash: "dot" }, customdata: s.edges.customdata, hovertemplate: at("window to") }),
    line("acknowledged", s.acks.x, s.acks.y, colours.green, { line: step, customdata: s.acks.customdata, hovertemplate: at("acknowledged to") }),
    line("data", s.data.x, s.data.y, colours.blue, { line: { width: 2.6 }, customdata: s.data.customdata, hovertemplate: at("byte") }),
    line("sent again", s.again.x, s.again.y, colours.red, { line: { width: 2.6 }, showlegend: false, customdata: s.again.customdata, hovertemplate: at("again, byte") }),
    { type: "scatter", mode: "markers", name: "sent again", ...s.marks, hovertemplate: at("again, byte"),
      marker: { symbol: "x", size: 8, color: colours.red } },
    { type: "scatter", mode: "markers+text", name: "SYN, FIN, RST", ...s.flags, textposition: "top center", hovertemplate: at("%{text} at"),
      textfont: { color: colours.ink, size: 11 }, marker: { symbol: "diamond", size: 8, color: colours.purple } },
  ] };
}

function statePanel(run, colours) {
  const tones = { opening: colours.orange, established: colours.blue, closing: colours.purple, TIME_WAIT: colours.grey };
  const named = run.connections.map((ends, number) => ({ ends, number, ...run.lives[number] })).filter((each) => each.from !== undefined);
  const chosen = named.filter((each) => each.number === run.connection);
  const shown = [...chosen, ...named.filter((each) => each.number !== run.connection).reverse()].slice(0, ROWS).reverse();
  const label = (each) => each.ends[1].replace(/^.*:/, "") + " ↔ " + each.ends[0].replace(/^.*:/, "");
  const unnamed = line("seen in the capture", [], [], colours.grey, { line: { width: 2 }, hovertemplate: "%{text}<extra></extra>", text: [] });
  const bars = Object.fromEntries(Object.entries(tones).map(([phase, colour]) =>
    [phase, line(phase, [], [], colour, { line: { width: 11 }, text: [], hovertemplate: "%{text}<extra></extra>" })]));
  const add = (into, from, to, y, text) => { into.x.push(from, to, null); into.y.push(y, y, null); into.text.push(text, text, null); };
  shown.forEach((each, y) => {
    const names = namesOf(each.ends);
    add(unnamed, run.seconds(each.from), run.seconds(each.to), y, each.ends.join(" → "));
    for (const span of run.spans)
      if (names.includes(span.conn) && span.from <= each.to + 1e6 && span.to >= each.from - 1e6)
        add(bars[span.phase], run.seconds(span.from), run.seconds(span.to), y, `${span.state}: ${each.ends.join(" → ")}`);
  });
  const traces = [unnamed, ...Object.values(bars)].filter((trace) => trace.x.length);
  return { title: "States", unit: "", weight: 0.6 + 0.16 * shown.length, traces, axis: { tickvals: shown.map((_, y) => y), ticktext: shown.map(label), range: [-0.7, shown.length - 0.3], fixedrange: true } };
}

function windowPanels(run, colours) {
  const life = run.lives[run.connection];
  if (!life) return [];
  const samples = connectionSamples(run.rows, run.connections[run.connection], life.from - 1e5, life.to + 1e5);
  if (!samples.length) return [];
  const x = samples.map((each) => run.seconds(each.t));
  const of = (name, pick, colour, more = {}) => line(name, x, samples.map(pick), colour,
    { mode: "lines+markers", marker: { size: 4 }, line: { shape: "hv" }, hovertemplate: "%{y:,}<extra>" + name + "</extra>", ...more });
  return [
    { title: "Windows, as the engine has them", unit: "bytes", weight: 1.5, traces: [
      of("cwnd", (each) => each.cwnd, colours.blue),
      of("ssthresh", (each) => (each.ssthresh >= 0xffffff ? null : each.ssthresh), colours.orange, { line: { shape: "hv", dash: "dash" } }),
      of("in flight", (each) => each.flight, colours.green),
      of("peer's window", (each) => each.snd_wnd, colours.grey, { line: { shape: "hv", dash: "dot" } }),
      of("own window", (each) => each.rcv_wnd, colours.purple, { line: { shape: "hv", dash: "dashdot" } }),
    ] },
    { title: "Round trip", unit: "ms", weight: 1.2, traces: [
      of("SRTT", (each) => each.rtt / 1000 || null, colours.blue),
      of("RTTVAR", (each) => (each.rtt ? each.rttvar / 1000 : null), colours.orange, { line: { shape: "hv", dash: "dot" } }),
      of("RTO", (each) => each.rto / 1000, colours.red, { line: { shape: "hv", dash: "dash" }, visible: "legendonly" }),
    ] },
  ];
}

function enginePanels(run, colours) {
  const series = engineSeries(run.rows, run.header);
  if (!series.length) return [];
  const x = series.map((each) => run.seconds(each.t));
  const of = (name, key, colour, dash = "solid", unit = "%") => line(name, x, series.map((each) => each[key]), colour,
    { line: { shape: "vh", dash }, hovertemplate: `%{y:.3~g} ${unit}<extra>${name}</extra>` });
  const any = (trace) => trace.y.some((value) => value !== null);
  return [
    { title: "Engine: how busy", unit: "% of cycles", weight: 1.4, axis: { rangemode: "tozero" }, traces: [
      of("TCB pipeline", "pipeline", colours.blue), of("frames in", "rx", colours.green, "dash"), of("frames out", "tx", colours.orange, "dash"),
      of("DMA read", "reads", colours.purple), of("DMA write", "writes", colours.red), of("receive buffer full", "buffer", colours.grey, "dot"),
    ].filter(any) },
    { title: "Engine: what is in use", unit: "number", weight: 1.2, axis: { rangemode: "tozero" }, traces: [
      of("ids", "ids", colours.blue, "solid", ""), of("half-open", "half_open", colours.orange, "dash", ""),
      of("commands", "commands", colours.green, "dot", ""), of("DMA reads open", "reads_open", colours.purple, "solid", ""),
      of("DMA writes open", "writes_open", colours.red, "dash", ""),
    ] },
  ];
}

function markPanel(run, colours) {
  const kinds = { events: ["circle", colours.blue], "sent again": ["x", colours.red], RST: ["diamond", colours.purple], drops: ["triangle-down", colours.orange] };
  const found = marks(run.frames, run.rows);
  const names = Object.keys(kinds).reverse();
  const traces = names.map((name) => {
    const these = found.filter((each) => each.row === name);
    return { type: "scatter", mode: "markers", name, showlegend: false, x: these.map((each) => run.seconds(each.t)), y: these.map(() => names.indexOf(name)),
      text: these.map((each) => each.text), customdata: these.map((each) => each.number), hovertemplate: "%{text}<extra></extra>",
      marker: { symbol: kinds[name][0], size: 9, color: kinds[name][1] } };
  });
  return { title: "Events and drops", unit: "", weight: 1, traces, axis: { tickvals: names.map((_, y) => y), ticktext: names, range: [-0.6, names.length - 0.4], fixedrange: true } };
}

function figure(run, colours) {
  const panels = [sequencePanel(run, colours), statePanel(run, colours), ...windowPanels(run, colours), ...enginePanels(run, colours), markPanel(run, colours)];
  const inside = panels.reduce((sum, panel) => sum + UNIT * panel.weight + GAP, 0), life = run.lives[run.connection];
  const range = life ? [life.from - 0.02 * (life.to - life.from), life.to + 0.04 * (life.to - life.from) + 1].map(run.seconds) : undefined;
  const layout = {
    height: inside + BELOW, margin: { l: 96, r: 14, t: 0, b: BELOW }, paper_bgcolor: colours.back, plot_bgcolor: colours.back,
    font: { color: colours.ink, size: 12, family: "system-ui, sans-serif" }, hovermode: "closest", dragmode: "zoom", uirevision: run.uirevision,
    hoverlabel: { bgcolor: colours.back, bordercolor: colours.soft, font: { color: colours.ink } }, annotations: [], shapes: [],
    xaxis: { title: { text: `${run.unit} since the first frame`, standoff: 8 }, gridcolor: colours.grid, zeroline: false, anchor: "free", position: 0, range },
  };
  const traces = [];
  let top = 1;
  panels.forEach((panel, number) => {
    const suffix = number ? String(number + 1) : "", height = (UNIT * panel.weight) / inside;
    top -= GAP / inside;
    layout[`yaxis${suffix}`] = { domain: [Math.max(top - height, 0), top], gridcolor: colours.grid, zeroline: false, automargin: false, exponentformat: "SI",
      title: { text: panel.unit, font: { size: 11, color: colours.soft } }, ...(panel.axis || {}) };
    layout[`legend${suffix}`] = { orientation: "h", x: 1, xanchor: "right", y: top + 2 / inside, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", font: { size: 11 } };
    layout.annotations.push({ text: `<b>${panel.title}</b>`, xref: "paper", yref: "paper", x: 0, xanchor: "left", y: top + 4 / inside, yanchor: "bottom", showarrow: false, font: { size: 13 } });
    for (const trace of panel.traces) traces.push({ ...trace, yaxis: `y${suffix}`, legend: `legend${suffix}`, xaxis: "x" });
    top -= height;
  });
  return { traces, layout };
}
