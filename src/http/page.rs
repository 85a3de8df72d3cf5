//! The files of the page: what a browser shows of the server. They are in the program, and ask for nothing from elsewhere.

/// A file.
pub struct File {
    /// Its path.
    pub path: &'static str,
    /// Its type (RFC 9110 §8.3).
    pub content_type: &'static str,
    /// Its text.
    pub text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! file {
    ($path:literal, $content_type:ident, $name:literal) => {
        File {
            path: $path,
            content_type: $content_type,
            text: include_str!(concat!("page/", $name)),
        }
    };
}

/// All files.
pub const FILES: [File; 7] = [
    file!("/", HTML, "index.html"),
    file!("/page.css", CSS, "page.css"),
    file!("/page.js", SCRIPT, "page.js"),
    file!("/plots.js", SCRIPT, "plots.js"),
    file!("/tables.js", SCRIPT, "tables.js"),
    file!("/units.js", SCRIPT, "units.js"),
    file!("/icon.svg", SVG, "icon.svg"),
];
