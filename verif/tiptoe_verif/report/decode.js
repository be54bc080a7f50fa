// A frame's headers as [name, value] rows, and its bytes as a hex dump. The bytes may end early: what is beyond them is not shown.

function frameBytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function hexDump(bytes, length) {
  const lines = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const part = [...bytes.slice(at, at + 16)];
    const hex = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const text = part.map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(4, "0")}  ${hex.padEnd(47)}  ${text}`);
  }
  if (bytes.length < length) lines.push(`… the first ${bytes.length} of ${length} bytes`);
  return lines.join("\n");
}

const PROTOCOLS = { 1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6" };
const ECN = ["not ECT", "ECT(1)", "ECT(0)", "CE"];
const FLAG_NAMES = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

function decode(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const rows = [];
  try {
    decodeEthernet(view, rows);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    rows.push(["…", "the bytes end here"]);
  }
  return rows;
}

function hexOf(view, at, count, mark) {
  return Array.from({ length: count }, (_, n) => view.getUint8(at + n).toString(16).padStart(2, "0")).join(mark);
}

function ip4(view, at) {
  return Array.from({ length: 4 }, (_, n) => view.getUint8(at + n)).join(".");
}

function ip6(view, at) {
  return Array.from({ length: 8 }, (_, n) => view.getUint16(at + 2 * n).toString(16)).join(":");
}

function decodeEthernet(view, rows) {
  let type = view.getUint16(12), at = 14;
  rows.push(["Ethernet", `${hexOf(view, 6, 6, ":")} → ${hexOf(view, 0, 6, ":")}`]);
  if (type === 0x8100) {
    rows.push(["802.1Q", `VLAN ${view.getUint16(14) & 0xfff}`]);
    type = view.getUint16(16);
    at = 18;
  }
  if (type === 0x0800) decodeIp4(view, at, rows);
  else if (type === 0x86dd) decodeIp6(view, at, rows);
  else if (type === 0x0806) {
    const kind = { 1: "request", 2: "reply" }[view.getUint16(at + 6)] || "?";
    rows.push(["ARP", `${kind}, ${ip4(view, at + 14)} asks or tells of ${ip4(view, at + 24)}`]);
  } else rows.push(["EtherType", `0x${type.toString(16)}`]);
}

function decodeIp4(view, at, rows) {
  const header = (view.getUint8(at) & 15) * 4, tos = view.getUint8(at + 1), protocol = view.getUint8(at + 9);
  const total = view.getUint16(at + 2), fragment = view.getUint16(at + 6);
  rows.push(["IPv4", `${ip4(view, at + 12)} → ${ip4(view, at + 16)}`]);
  rows.push(["", `${total} bytes, TTL ${view.getUint8(at + 8)}, DSCP ${tos >> 2}, ${ECN[tos & 3]}${fragment & 0x4000 ? ", DF" : ""}`]);
  if (fragment & 0x1fff) rows.push(["fragment", `from byte ${(fragment & 0x1fff) * 8}`]);
  else decodeUpper(view, protocol, at + header, at + total, rows);
}

function decodeIp6(view, at, rows) {
  const length = view.getUint16(at + 4), protocol = view.getUint8(at + 6), tos = (view.getUint16(at) >> 4) & 0xff;
  rows.push(["IPv6", `${ip6(view, at + 8)} → ${ip6(view, at + 24)}`]);
  rows.push(["", `${length} bytes behind the header, hop limit ${view.getUint8(at + 7)}, DSCP ${tos >> 2}, ${ECN[tos & 3]}`]);
  decodeUpper(view, protocol, at + 40, at + 40 + length, rows);
}

function decodeUpper(view, protocol, at, end, rows) {
  if (protocol === 6) decodeTcp(view, at, end, rows);
  else rows.push([PROTOCOLS[protocol] || `protocol ${protocol}`, `${end - at} bytes`]);
}

function decodeTcp(view, at, end, rows) {
  const offset = (view.getUint8(at + 12) >> 4) * 4, bits = view.getUint8(at + 13);
  const flags = FLAG_NAMES.filter((_, bit) => (bits >> bit) & 1).join(", ");
  rows.push(["TCP", `port ${view.getUint16(at)} → ${view.getUint16(at + 2)}`]);
  rows.push(["flags", flags || "none"]);
  rows.push(["SEG.SEQ", view.getUint32(at + 4).toLocaleString()]);
  rows.push(["SEG.ACK", bits & 16 ? view.getUint32(at + 8).toLocaleString() : "–"]);
  rows.push(["SEG.WND", `${view.getUint16(at + 14).toLocaleString()} (not scaled)`]);
  rows.push(["checksum", `0x${hexOf(view, at + 16, 2, "")}`]);
  if (bits & 32) rows.push(["urgent pointer", String(view.getUint16(at + 18))]);
  rows.push(["payload", `${(end - at - offset).toLocaleString()} bytes`]);
  decodeOptions(view, at + 20, at + offset, rows);
}

function decodeOptions(view, at, end, rows) {
  while (at < end) {
    const kind = view.getUint8(at);
    if (kind === 0) return;
    if (kind === 1) { at += 1; continue; }
    const length = view.getUint8(at + 1);
    if (length < 2 || at + length > end) { rows.push(["option", `${kind}: a wrong length`]); return; }
    if (kind === 2) rows.push(["MSS", String(view.getUint16(at + 2))]);
    else if (kind === 3) rows.push(["window scale", String(view.getUint8(at + 2))]);
    else if (kind === 4) rows.push(["SACK permitted", "yes"]);
    else if (kind === 8) rows.push(["timestamps", `TSval ${view.getUint32(at + 2)}, TSecr ${view.getUint32(at + 6)}`]);
    else if (kind === 5)
      for (let edge = at + 2; edge + 8 <= at + length; edge += 8)
        rows.push(["SACK", `${view.getUint32(edge).toLocaleString()} to ${view.getUint32(edge + 4).toLocaleString()}`]);
    else rows.push(["option", `${kind}, ${length} bytes`]);
    at += length;
  }
}
