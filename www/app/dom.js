// The two things that every part asks of the document.

export const el = (id) => document.getElementById(id);

export const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
