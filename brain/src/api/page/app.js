// The status page. Everything that devices say is set as text, never as markup.

const byId = (id) => document.getElementById(id);
const KEY = "fleet-token";
const EVERY_MS = 2000;
let chosen = null;

const token = () => sessionStorage.getItem(KEY);

async function call(path) {
  const response = await fetch(path, { headers: { authorization: `Bearer ${token()}` } });
  if (response.status === 401) {
    sessionStorage.removeItem(KEY);
    showLogin("");
  }
  if (!response.ok) throw new Error((await response.json().catch(() => ({}))).detail ?? response.statusText);
  return response.json();
}

function cell(text, className) {
  const td = document.createElement("td");
  td.textContent = text;
  if (className) td.className = className;
  return td;
}

function row(...cells) {
  const tr = document.createElement("tr");
  tr.append(...cells);
  return tr;
}

const ago = (ms) => {
  if (!ms) return "never";
  const seconds = Math.max(0, Math.round((Date.now() - ms) / 1000));
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  return new Date(ms).toLocaleString();
};

const bytes = (n) => (n === undefined ? "" : `${(n / 2 ** 20).toFixed(0)} MiB`);
const shown = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value));

function temperature(summary) {
  const found = Object.entries(summary).filter(([path]) => path.endsWith("_celsius"));
  return found.length ? `${Math.max(...found.map(([, value]) => value)).toFixed(1)} °C` : "";
}

function deviceRow(device) {
  const { summary } = device;
  const connection = device.quarantined_until ? "quarantined: cloned identity"
    : device.online ? `online since ${ago(device.connected_since)}` : "offline";
  const tr = row(
    cell(device.name),
    cell(device.id.slice(0, 8), "id"),
    cell(connection, device.online ? "online" : "offline"),
    cell(summary["machine/load1"]?.toFixed(2) ?? ""),
    cell(temperature(summary)),
    cell(bytes(summary["machine/memory_available_bytes"])),
    cell(device.version),
    cell(ago(device.last_change)),
  );
  tr.className = device.id === chosen?.id ? "choice chosen" : "choice";
  tr.tabIndex = 0;
  const choose = () => { chosen = device; refresh(); };
  tr.addEventListener("click", choose);
  tr.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(); });
  return tr;
}

function changeRow(change) {
  const { added, modified, removed } = change.delta;
  const set = Object.entries({ ...added, ...modified }).map(([path, value]) => `${path} = ${shown(value)}`);
  const what = [...set, ...removed.map((path) => `${path} removed`)].join("\n");
  const text = cell(what);
  text.classList.add("lines");
  return row(cell(change.version), text, cell(`${change.source}, ${change.principal}: ${change.reason}`), cell(ago(change.timestamp)));
}

async function showDevice() {
  byId("device").hidden = !chosen;
  if (!chosen) return;
  byId("device-name").textContent = `${chosen.name} (${chosen.id})`;
  const base = `/api/v1/devices/${chosen.id}`;
  const [state, history] = await Promise.all([call(`${base}/state`), call(`${base}/history?limit=20`)]);
  byId("leaves").replaceChildren(...Object.entries(state.state).map(([path, value]) => row(cell(path), cell(shown(value)))));
  byId("changes").replaceChildren(...history.changes.map(changeRow));
}

async function refresh() {
  if (!token()) return showLogin("");
  try {
    const { devices, next } = await call("/api/v1/devices?limit=200");
    const online = devices.filter((device) => device.online).length;
    byId("status").textContent = `${online} of ${devices.length}${next ? "+" : ""} devices online`;
    byId("devices").replaceChildren(...devices.map(deviceRow));
    byId("empty").hidden = devices.length > 0;
    byId("login").hidden = true;
    byId("fleet").hidden = byId("log-out").hidden = false;
    await showDevice();
  } catch (error) {
    byId("status").textContent = `The brain does not answer: ${error.message}`;
  }
}

function showLogin(message) {
  byId("login").hidden = false;
  byId("fleet").hidden = byId("device").hidden = byId("log-out").hidden = true;
  byId("login-error").textContent = message;
  byId("status").textContent = "";
}

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const code = byId("code").value.trim();
  byId("code").value = "";
  if (code.startsWith("fbt_")) {
    sessionStorage.setItem(KEY, code);
    return refresh();
  }
  const response = await fetch("/api/v1/login", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ code }),
  });
  const answer = await response.json();
  if (!response.ok) return showLogin(answer.detail ?? "The code was not accepted.");
  sessionStorage.setItem(KEY, answer.token);
  refresh();
});

byId("log-out").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  chosen = null;
  showLogin("");
});

refresh();
setInterval(() => { if (token() && !document.hidden) refresh(); }, EVERY_MS);
