//! The page is embedded from `web/dist`, which `npm run build` fills. An empty folder is enough for a build without npm.

fn main() {
    let dist = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("web/dist");
    if let Err(error) = std::fs::create_dir_all(&dist) {
        panic!("{} cannot be created: {error}", dist.display());
    }
    println!("cargo::rerun-if-changed=web/dist");
}
