// Names of repositories on the Hugging Face hub, and the addresses of its pages.

import { decoded, isSingle } from "./address.js";
import { invalid, shown } from "./options.js";

export const HUB = "https://huggingface.co";
/** Other hosts whose pages are the hub's. */
const HUB_HOSTS = ["huggingface.co", "www.huggingface.co", "hf.co"];

const EXPECTED = 'expected "hf:org/name", or "hf:org/name@revision", or either with "/folder" or "/file.safetensors" behind it';
/** A revision and a path behind it. Only the hub's own names of proposals have a slash in them that is not written "%2F". */
const REVISION = /^(refs\/pr\/\d+|[^/]+)(?:\/(.*))?$/s;
const NAME = /^(?!\.+$)[\w.-]+$/;

/** `{ repo, revision, path }`; `rest` is "revision/path", `refuse` makes the error. */
function repository(org, name, rest, refuse) {
  const [, revision, path = ""] = REVISION.exec(rest) ?? [];
  if (!NAME.test(org) || !NAME.test(name) || revision === undefined) throw refuse(EXPECTED);
  if (["datasets", "spaces"].includes(org)) throw refuse(`expected a model's repository, found one of ${org}`);
  const parts = path === "" ? [] : path.replace(/\/$/, "").split("/").map(decoded);
  const leaves = (part) => ["", ".", ".."].includes(part) || /[\\/\0]/.test(part) || !part.isWellFormed();
  if (parts.some(leaves)) throw refuse("expected a path inside of the repository");
  const named = decoded(revision);
  if (named.split("/").some(leaves)) throw refuse("expected the name of a revision");
  return { repo: `${org}/${name}`, revision: named, path: parts.join("/") };
}

/** What `hf:org/name@revision/path` names. */
export function parseName(where, text) {
  const refuse = (what) => invalid(`${where}: ${shown(text)}: ${what}`);
  const match = /^hf:(?:\/\/)?([^/@]+)\/([^/@]+)(?:@(.+)|\/(.*))?$/is.exec(text);
  if (!match) throw refuse(EXPECTED);
  const [, org, name, revised, path = ""] = match;
  return repository(org, name, revised ?? `main/${path}`, refuse);
}

/**
 * What a page of the hub at `hub` is about, whose address a person copied: a repository, a folder or a file of it. Null for other
 * addresses; a page that no checkpoint can be on is refused.
 */
export function parsePage(where, url, hub = HUB) {
  const base = new URL(hub);
  const root = base.pathname.replace(/\/*$/, "/");
  const known = HUB_HOSTS.includes(url.host);
  const below = url.origin === base.origin && url.pathname.startsWith(root);
  if (!known && !below) return null;
  const path = url.pathname.slice(below ? root.length : 1);
  const refuse = (what) => invalid(`${where}: ${shown(url.origin + url.pathname)}: ${what}`);
  const match = /^([^/]+)\/([^/]+)(?:\/(?:(?:tree|blob|resolve|raw)\/(.+))?)?$/s.exec(path);
  const reserved = /^(datasets|spaces|api|docs|collections|papers)\//.test(path);
  if (match && !reserved && (match[3] || !isSingle(match[2]))) return repository(match[1], match[2], match[3] ?? "main", refuse);
  // Files of other kinds of repositories are files like any other.
  if (known && !path.includes("/resolve/")) throw refuse("expected the page of a model's repository, or of a folder or a file of it");
  return null;
}

/** The one name of each, with which it is kept too. */
export function nameOf({ repo, revision, path }) {
  const encoded = (text) => text.replace(/[%?#]/g, encodeURIComponent);
  const at = revision === "main" ? "" : `@${/^refs\/pr\/\d+$/.test(revision) ? revision : encodeURIComponent(revision)}`;
  return `hf:${repo}${at}${path && `/${encoded(path)}`}`;
}
