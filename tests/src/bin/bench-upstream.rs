//! The upstream of `scripts/bench`: one image, served from memory, with counters of requests.
//!
//! `bench-upstream FOLDER SIZE` makes an image of one layer of SIZE bytes, writes the layer and the manifest into
//! FOLDER, and prints one line of JSON that says where it is served. After that it answers each line of its standard
//! input with a line of JSON, and ends when there are no more:
//!
//! - `counts`: requests and body bytes since the start or the last `clear`
//! - `clear`: forgets the counts
//! - `pace N`: sends blobs at N bytes a second and connection from now on; 0: as fast as it can
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "its caller reads what it prints, and reports a panic"
)]

use std::path::Path;

use serde_json::{Value, json};
use tidegate_tests::chaos::{ChaosUpstream, Fault, Rule};
use tidegate_tests::image::Image;

const REPOSITORY: &str = "library/bench";
const TAG: &str = "1";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap();
    let size: usize = arguments.next().unwrap().parse().unwrap();
    let image = Image::random(1, &[size]);
    let layer = image.layers.first().unwrap();
    std::fs::write(Path::new(&folder).join("blob"), &layer.bytes).unwrap();
    std::fs::write(Path::new(&folder).join("manifest"), &image.manifest).unwrap();
    let upstream = ChaosUpstream::start().await;
    upstream.put_image(REPOSITORY, TAG, &image);
    let described = json!({
        "url": upstream.url(),
        "repository": REPOSITORY,
        "tag": TAG,
        "manifest": image.digest,
        "media_type": image.media_type,
        "blob": layer.digest,
        "size": size,
    });
    println!("{described}");
    for line in std::io::stdin().lines() {
        println!("{}", obey(&upstream, &layer.digest, line.unwrap().trim()));
    }
}

fn obey(upstream: &ChaosUpstream, blob: &str, order: &str) -> Value {
    match order.split_once(' ').unwrap_or((order, "")) {
        ("counts", _) => json!({
            "requests": upstream.count("*", "/"),
            "blob_requests": upstream.count("GET", blob),
            "blob_bytes": upstream.blob_bytes(blob),
        }),
        ("clear", _) => {
            upstream.clear_requests();
            json!({})
        }
        ("pace", speed) => {
            upstream.clear_rules();
            let bytes_per_second = speed.parse().unwrap();
            if bytes_per_second > 0 {
                upstream.on(Rule::on("GET", blob).then(Fault::Throttle { bytes_per_second }));
            }
            json!({})
        }
        _ => json!({ "error": "counts, clear or pace N" }),
    }
}
