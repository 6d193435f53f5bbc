//! The page is embedded from `web/dist`, which `deploy/prepare web` fills. An empty folder is enough for a build without npm,
//! which is never called from here: a page that is missing or older than its sources is told as a warning.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What the page is made of, in `web`.
const SOURCES: [&str; 6] =
    ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "src"];
const REMEDY: &str = "`deploy/prepare web` makes it (deploy/run does so by itself)";

fn main() {
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
    let dist = web.join("dist");
    if let Err(error) = std::fs::create_dir_all(&dist) {
        panic!("{} cannot be created: {error}", dist.display());
    }
    println!("cargo::rerun-if-changed=web/dist");
    for source in SOURCES {
        println!("cargo::rerun-if-changed=web/{source}");
    }
    let newest = SOURCES.iter().filter_map(|source| newest(&web.join(source))).max();
    match (changed(&dist.join("index.html")), newest) {
        (None, _) => println!("cargo::warning=the web page is missing: this build serves none. {REMEDY}"),
        (Some(built), Some((changed, source))) if changed > built => {
            let source = source.strip_prefix(&web).unwrap_or(&source).display();
            println!("cargo::warning=the web page in this build is older than web/{source}. {REMEDY}");
        }
        (Some(_), _) => {}
    }
}

/// The file of this folder, or the file itself, that was changed last.
fn newest(path: &Path) -> Option<(SystemTime, PathBuf)> {
    match std::fs::read_dir(path) {
        Ok(entries) => entries.flatten().filter_map(|entry| newest(&entry.path())).max(),
        Err(_) => changed(path).map(|changed| (changed, path.to_owned())),
    }
}

fn changed(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|metadata| metadata.modified()).ok()
}
