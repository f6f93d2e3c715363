"""Report style: how the page of a report looks."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.45 system-ui, "Segoe UI", Roboto, sans-serif;
  color: #1c2630; background: #f4f6f8; }
header, main, footer { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 24px; }
h1 { font-size: 26px; margin: 0 0 4px; display: flex; flex-wrap: wrap; gap: 12px;
  align-items: center; }
h2 { font-size: 19px; margin: 0 0 12px; }
h3 { font-size: 15px; margin: 14px 0 4px; }
.message { margin: 4px 0 0; }
dl { display: flex; flex-wrap: wrap; gap: 6px 28px; margin: 12px 0; }
dt { font-size: 12px; color: #55626f; }
dd { margin: 0; overflow-wrap: anywhere; }
nav { position: sticky; top: 0; z-index: 9; background: #f4f6f8;
  border-bottom: 1px solid #c9d1d9; padding: 8px max(20px, calc(50% - 570px));
  display: flex; flex-wrap: wrap; gap: 4px 20px; }
nav a { color: #0b5a94; text-decoration: none; }
nav a:hover { text-decoration: underline; }
section { background: #fff; border: 1px solid #dde3e9; border-radius: 8px;
  padding: 16px 18px; margin: 16px 0; scroll-margin-top: 48px; }
.chip { display: inline-flex; align-items: center; gap: 6px; font-size: 14px;
  font-weight: normal; white-space: nowrap; }
.chip i { width: 12px; height: 12px; border-radius: 3px;
  border: 1px solid rgb(0 0 0 / 35%); flex: none; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 6px 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-size: 12px; color: #55626f; font-weight: 600; }
th, td { padding: 6px 10px 6px 0; border-bottom: 1px solid #e6ebf0;
  vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
td small { color: #55626f; display: block; }
.name { overflow-wrap: anywhere; font-weight: 600; }
.share { display: flex; height: 10px; min-width: 140px; border-radius: 3px;
  overflow: hidden; margin: 5px 0 2px; }
.share i { min-width: 2px; }
.share i + i { border-left: 1px solid #fff; }
details { border-top: 1px solid #e6ebf0; padding: 6px 0; }
summary { cursor: pointer; display: flex; gap: 12px; align-items: baseline; }
summary::before { content: "\\25B8"; color: #55626f; }
details[open] summary::before { content: "\\25BE"; }
summary .told { overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  min-width: 0; }
summary .name { flex: none; max-width: 40%; }
pre { background: #f4f6f8; border-radius: 6px; padding: 10px 12px; overflow: auto;
  font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; margin: 8px 0 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
pre.log { max-height: 460px; white-space: pre; overflow-wrap: normal; }
footer { color: #55626f; font-size: 12px; padding-bottom: 24px; }
@media print { nav { display: none; } section { break-inside: avoid; }
  pre.log { max-height: none; } }
"""
