// Copies what the console shows and tests need out of node_modules, so that building Keyferry needs no
// Node.js. Run it after changing package.json:  npm ci --ignore-scripts && npm run vendor
// The results are committed; review their diff.
import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const from = (...p) => join(here, "node_modules", ...p);
const to = (...p) => join(here, "..", ...p);

// Icons by the name that templates use. A test checks that each is used and that each used one is here.
const icons = {
  mark: "ferry", status: "gauge", hsm: "cpu", slots: "lock", coverage: "table", sync: "arrows-exchange", apps: "apps",
  cluster: "topology-star-3", jobs: "checklist", audit: "clipboard-list", account: "user-circle",
  check: "check", ok: "circle-check", bad: "circle-x", warn: "alert-triangle", alert: "alert-circle", unknown: "help-circle",
  wait: "clock", info: "info-circle", none: "circle-minus", free: "circle-dashed", missing: "x",
  download: "download", upload: "upload", package: "package", plus: "plus",
  down: "chevron-down", logout: "logout", theme: "contrast", light: "sun", dark: "moon", system: "device-desktop",
  key: "key", minus: "minus", restart: "rotate-clockwise", people: "users", approvals: "user-check", identity: "certificate",
};

function paths(file) {
  const svg = readFileSync(from("@tabler/icons/icons/outline", file + ".svg"), "utf8");
  return svg.slice(svg.indexOf(">", svg.indexOf("<svg")) + 1, svg.lastIndexOf("</svg>"))
    .replace(/<path stroke="none" d="M0 0h24v24H0z" fill="none"\s*\/>/, "").replace(/\s+/g, " ").replace(/ ?\/>/g, "/>").trim();
}
const line = `fill="none" stroke="currentColor" stroke-width="1.75" stroke-linecap="round" stroke-linejoin="round"`;
const symbols = Object.entries(icons).map(([name, file]) => `<symbol id="${name}" viewBox="0 0 24 24" ${line}>${paths(file)}</symbol>`);
writeFileSync(to("static/favicon.svg"),
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#14202f"/><g transform="translate(4 4)" color="#7cc0ff" ${line}>${paths(icons.mark)}</g></svg>\n`);
writeFileSync(to("static/icons.svg"),
  `<svg xmlns="http://www.w3.org/2000/svg">\n<!-- Tabler Icons, MIT: see icons.LICENSE.txt. Made by assets/vendor/vendor.mjs. -->\n${symbols.join("\n")}\n</svg>\n`);
copyFileSync(from("@tabler/icons/LICENSE"), to("static/icons.LICENSE.txt"));

copyFileSync(from("@fontsource-variable/inter/files/inter-latin-wght-normal.woff2"), to("static/inter.woff2"));
copyFileSync(from("@fontsource-variable/inter/LICENSE"), to("static/inter.LICENSE.txt"));

copyFileSync(from("axe-core/axe.min.js"), to("../testdata/axe/axe.min.js"));
copyFileSync(from("axe-core/LICENSE"), to("../testdata/axe/LICENSE"));
