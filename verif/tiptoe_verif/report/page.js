// The page: takes a run's data in, at once or bit by bit, draws it, and lets a segment be chosen by click and keyboard.

const find = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");
const LIST = 13;  // rows of the list
const POLL_MS = 1000;
const SILENT_MS = 3000;  // between questions to a run that did not answer the last one
const PLOT_OPTIONS = { responsive: true, displaylogo: false, displayModeBar: false };

const run = { header: {}, connections: [], frames: [], rows: [], framesBefore: 0, rowsBefore: 0, framesRead: 0, rowsRead: 0, lives: [], spans: [], stride: 1,
  connection: 0, forward: true, unit: "seconds", scale: 1e6, seconds: (t) => (t - run.begin) / run.scale, begin: 0, uirevision: "" };
let chosen = null;  // a frame
let drawn = false;

function absorb(data) {
  run.header = data.header;
  run.connections = run.connections.concat(data.connections);
  run.frames = run.frames.concat(data.frames);
  run.rows = run.rows.concat(data.rows);
  for (const row of run.rows) if (row.k === "sample" && row.n % data.stride) row.conns = [];
  run.stride = data.stride;
  Object.assign(run, { framesBefore: data.frames_before, rowsBefore: data.rows_before, framesRead: data.frames_read, rowsRead: data.rows_read });
  run.frames = run.frames.slice(-(data.frames_read - data.frames_before) || run.frames.length);
  run.rows = run.rows.slice(-(data.rows_read - data.rows_before) || run.rows.length);
  const times = [...run.frames.slice(-1).map((frame) => frame[F.time]), ...run.rows.slice(-1).map((row) => row.t)];
  run.begin = data.begin ?? (run.rows.length ? run.rows[0].t : 0);
  const end = Math.max(run.begin, ...times);
  [run.scale, run.unit] = end - run.begin < 2e6 ? [1e3, "milliseconds"] : [1e6, "seconds"];
  run.lives = [];
  for (const frame of run.frames) {
    if (frame[F.connection] === null) continue;
    const life = (run.lives[frame[F.connection]] ||= { from: frame[F.time], to: frame[F.time], bytes: [0, 0], frames: 0 });
    life.to = frame[F.time];
    life.frames += 1;
    life.bytes[frame[F.forward] ? 0 : 1] += Math.max(frame[F.end] - frame[F.start], 0);
  }
  run.spans = stateSpans(run.rows, end);
}

// Words that are there already are not said again to who listens to them.
function say(text) {
  if (find("notes").textContent !== text) find("notes").textContent = text;
}

function showHead() {
  const { header } = run;
  find("title").textContent = header.command || "A run";
  const facts = [header.config && `engine ${header.config} at ${header.address}`, header.written, header.clock && `${header.clock} time`,
    `${run.framesRead.toLocaleString()} frames`, `${run.connections.length} connection${run.connections.length === 1 ? "" : "s"}`];
  find("facts").textContent = facts.filter(Boolean).join(" · ");
  const notes = [];
  if (run.framesBefore) notes.push(`the first ${run.framesBefore.toLocaleString()} frames are left out`);
  if (!run.framesRead) notes.push("no frame has passed");
  if (run.stride > 1) notes.push(`windows and round trips are those of every ${run.stride}th sample`);
  if (run.rowsBefore) notes.push(`the first ${run.rowsBefore.toLocaleString()} lines of the record are left out`);
  if (!run.rowsRead) notes.push("a capture alone: no states, windows, round trips and occupancy");
  say(notes.join("; "));
}

function showChoices() {
  const known = run.lives.map((life, number) => ({ life, number })).filter((each) => each.life);
  offer(find("connection"), known.map(({ life, number }) => [`${run.connections[number].join(" → ")}, ${life.frames} frames`, String(number)]), run.connection);
  const ends = run.connections[run.connection];
  offer(find("direction"), ends ? [[`${ends[0]} → ${ends[1]}`, "1"], [`${ends[1]} → ${ends[0]}`, "0"]] : [], run.forward ? 1 : 0);
}

// Options as [text, value]. Those that are there stay: somebody may have the list open while the run goes on.
function offer(select, options, value) {
  options.forEach(([text, name], place) => {
    const there = select.options[place];
    if (there && there.value === name) { if (there.text !== text) there.text = text; } else select.add(new Option(text, name), place);
  });
  select.options.length = options.length;
  if (select.value !== String(value)) select.value = String(value);
}

function chooseConnection(number) {
  run.connection = number;
  const life = run.lives[number];
  run.forward = !life || life.bytes[0] >= life.bytes[1];
  run.uirevision = `${number}`;
}

// --- the graphs ---

function draw() {
  const { traces, layout } = figure(run, dark.matches ? DARK : LIGHT);
  layout.shapes = chosenShapes();
  Plotly.react("plot", traces, layout, PLOT_OPTIONS);
  if (!drawn) {
    drawn = true;
    find("plot").on("plotly_click", (event) => {
      const number = event.points[0].customdata;
      const frame = number === undefined || number === null ? nearest(event.points[0].x) : byNumber(number);
      if (frame) choose(frame);
    });
  }
}

function chosenShapes() {
  if (!chosen) return [];
  const colours = dark.matches ? DARK : LIGHT, x = run.seconds(chosen[F.time]);
  return [{ type: "line", xref: "x", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, line: { color: colours.choice, width: 1.2, dash: "dot" } }];
}

const byNumber = (number) => run.frames[number - run.framesBefore];

function nearest(x) {
  const own = shownFrames();
  return own.reduce((best, frame) => (Math.abs(run.seconds(frame[F.time]) - x) < Math.abs(run.seconds(best[F.time]) - x) ? frame : best), own[0]);
}

// --- the list and the frame chosen ---

function shownFrames() {
  return run.frames.filter((frame) => frame[F.connection] === run.connection || !run.connections.length);
}

function describe(frame) {
  const data = frame[F.end] - frame[F.start];
  const way = frame[F.toEngine] === null ? (frame[F.forward] ? "→" : "←") : frame[F.toEngine] ? "▸" : "◂";
  const what = frame[F.connection] === null ? frame[F.note] || "not TCP"
    : `${frame[F.start]}${data > 0 ? ` +${data}` : ""}${frame[F.ack] === null ? "" : ` ack ${frame[F.ack]}`}${frame[F.again] ? " again" : ""}`;
  return [String(frame[F.number]), run.seconds(frame[F.time]).toFixed(3), way, frame[F.flags], what];
}

function showList() {
  const own = shownFrames(), at = Math.max(own.indexOf(chosen), 0);
  const begin = Math.max(0, Math.min(at - (LIST >> 1), own.length - LIST));
  find("list-title").textContent = run.connections.length ? `Segments: ${own.length.toLocaleString()} of this connection` : `Frames: ${own.length.toLocaleString()}`;
  find("list").replaceChildren(...own.slice(begin, begin + LIST).map((frame, place) => {
    const item = document.createElement("li");
    item.id = `frame-${frame[F.number]}`;
    item.setAttribute("role", "option");
    item.setAttribute("aria-selected", String(frame === chosen));
    item.setAttribute("aria-setsize", own.length);
    item.setAttribute("aria-posinset", begin + place + 1);
    for (const text of describe(frame)) item.append(Object.assign(document.createElement("span"), { textContent: text }));
    item.addEventListener("click", () => choose(frame));
    return item;
  }));
  if (chosen) find("list").setAttribute("aria-activedescendant", `frame-${chosen[F.number]}`);
}

function choose(frame) {
  chosen = frame;
  if (frame[F.connection] !== null && frame[F.connection] !== run.connection) {
    chooseConnection(frame[F.connection]);
    showChoices();
    draw();
  } else if (drawn) Plotly.relayout("plot", { shapes: chosenShapes() });
  showList();
  showFrame(frame);
}

function showFrame(frame) {
  const bytes = frameBytes(frame[F.bytes]);
  find("frame").hidden = false;
  find("frame-title").textContent = `Frame ${frame[F.number]}, ${run.seconds(frame[F.time]).toFixed(3)} ${run.unit}`;
  const rows = decode(bytes);
  if (frame[F.note]) rows.push(["remark", frame[F.note]]);
  find("fields").replaceChildren(...rows.flatMap(([name, value]) => [
    Object.assign(document.createElement("dt"), { textContent: name }), Object.assign(document.createElement("dd"), { textContent: value })]));
  find("hex").textContent = hexDump(bytes, frame[F.length]);
  const known = frame[F.first] !== null;
  find("cycle").textContent = known
    ? `${frame[F.toEngine] ? "into" : "out of"} the engine in cycles ${frame[F.first].toLocaleString()} to ${frame[F.last].toLocaleString()}`
    : "a capture alone tells no cycles";
  find("wave").hidden = !known || !run.header.waves;
  find("command").textContent = `${run.header.waves} --cycle ${frame[F.first]}`;
  if (known && !run.header.waves) find("cycle").textContent += "; this run has no waveform";
}

function move(by) {
  const own = shownFrames(), at = own.indexOf(chosen);
  const next = own[at < 0 && Number.isFinite(by) ? 0 : Math.max(0, Math.min(own.length - 1, at + by))];
  if (next) choose(next);
}

function keys(event) {
  const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
  if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.currentTarget.id === "plot" && !event.key.match(/Left|Right/)) return;  // the page scrolls
  event.preventDefault();
  move(steps[event.key]);
}

// --- the run goes on ---

function show() {
  if (run.connections.length && !run.lives[run.connection])
    chooseConnection(run.lives.findIndex((life) => life));
  showHead();
  showChoices();
  showList();
  draw();
}

async function poll() {
  let wait = POLL_MS;
  try {
    if (find("follow").checked) await ask();
  } catch (error) {
    say(`the run does not answer (${error.message})`);
    wait = SILENT_MS;
  }
  setTimeout(poll, wait);
}

async function ask() {
  const answer = await fetch(`data?frames=${run.framesRead}&rows=${run.rowsRead}&connections=${run.connections.length}`);
  if (!answer.ok) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
  const data = await answer.json(), first = !run.frames.length;
  if (drawn && data.header.written + data.header.began_ns !== run.header.written + run.header.began_ns) {
    location.reload();  // another run has this port now
    return;
  }
  if (data.frames.length || data.rows.length || !drawn) {
    absorb(data);
    if (first && run.frames.length) chooseMost();
    show();
  } else showHead();
}

function chooseMost() {
  const most = run.lives.reduce((best, life, number) => (!run.lives[best] || life.frames > run.lives[best].frames ? number : best), 0);
  chooseConnection(most);
}

function begin() {
  const data = JSON.parse(find("data").textContent);
  find("list").addEventListener("keydown", keys);
  find("plot").addEventListener("keydown", keys);
  find("connection").addEventListener("change", (event) => { chooseConnection(Number(event.target.value)); chosen = null; show(); });
  find("direction").addEventListener("change", (event) => { run.forward = event.target.value === "1"; draw(); });
  find("copy").addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(find("command").textContent);
      say("the command is copied");
    } catch (error) {
      say(`this browser does not copy (${error.message})`);
    }
  });
  dark.addEventListener("change", draw);
  if (data) {
    absorb(data);
    chooseMost();
    show();
  } else {
    find("follow-label").hidden = false;
    poll();
  }
}

begin();
