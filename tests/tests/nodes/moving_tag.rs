//! A tag moves upstream while two registry-api processes answer it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tidegate_tests::{
    assert_eventually,
    cluster::{Cluster, NAME, UPSTREAM_NAME},
    http_client::http_client,
    image::Image,
};
use tokio::sync::watch;

const TAG_TTL: Duration = Duration::from_secs(1);
const CACHE_MAX_AGE: Duration = Duration::from_secs(1);
const MOVES: usize = 16;
/// Often enough that the tag moves within every lifetime of a copy, too.
const BETWEEN: Duration = Duration::from_millis(650);

/// What one process said.
#[derive(Clone, Copy, Debug)]
struct Said {
    /// Which of the images the tag named.
    image: usize,
    asked: Instant,
    answered: Instant,
}

/// Asks one process for the tag again and again, until told; `latest` is the last image that it named.
async fn watch(
    url: String,
    images: Arc<Vec<Image>>,
    latest: Arc<AtomicUsize>,
    stop: watch::Receiver<()>,
) -> Vec<Said> {
    let client = http_client();
    let mut said = Vec::new();
    while stop.has_changed().is_ok() {
        let asked = Instant::now();
        let answer = client.get(&url).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{url}");
        let digest = answer.headers()["docker-content-digest"].to_str().unwrap().to_owned();
        let body = answer.bytes().await.unwrap();
        let image = images.iter().position(|image| image.digest == digest).unwrap();
        assert_eq!(body, images[image].manifest);
        said.push(Said { image, asked, answered: Instant::now() });
        latest.store(image, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn two_registry_apis_never_disagree_for_long_and_a_tag_never_moves_back() {
    let cluster = Cluster::builder()
        .contents(1)
        .apis(2)
        .api("cache_max_age = \"1s\"")
        .upstream("tag_ttl = \"1s\"")
        .start()
        .await;
    let images: Arc<Vec<_>> = Arc::new(
        (0..=MOVES).map(|number| Image::random(u64::try_from(number).unwrap() + 1, &[10])).collect(),
    );
    cluster.upstream.put_image(UPSTREAM_NAME, "moving", &images[0]);
    let (stop, stopped) = watch::channel(());
    let latest = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let watching: Vec<_> = cluster
        .apis
        .iter()
        .zip(&latest)
        .map(|(api, latest)| {
            let url = format!("{}/v2/{NAME}/manifests/moving", api.url());
            tokio::spawn(watch(url, Arc::clone(&images), Arc::clone(latest), stopped.clone()))
        })
        .collect();
    let mut moved = Vec::new();
    for image in &images[1..] {
        tokio::time::sleep(BETWEEN).await;
        cluster.upstream.put_image(UPSTREAM_NAME, "moving", image);
        moved.push(Instant::now());
    }
    assert_eventually!(
        latest.iter().all(|latest| latest.load(Ordering::SeqCst) == MOVES),
        "both see the last move"
    );
    drop((stop, stopped));
    let mut said = Vec::new();
    for watching in watching {
        said.push(watching.await.unwrap());
    }

    let mut behind = Duration::ZERO;
    for (one, other) in [(&said[0], &said[1]), (&said[1], &said[0])] {
        for pair in one.windows(2) {
            assert!(pair[0].image <= pair[1].image, "the tag moved back: {pair:?}");
        }
        for number in 1..=MOVES {
            // From the first answer with an image on, anywhere, to the last question that was answered with an older one.
            let first = other.iter().find(|said| said.image >= number).expect("both see the last move");
            if let Some(last) = one.iter().rfind(|said| said.image < number) {
                behind = behind.max(last.asked.saturating_duration_since(first.answered));
            }
        }
    }
    let age = |said: &Said| said.asked.saturating_duration_since(moved[said.image]);
    // An answer is as old as the move that it had not seen.
    let stale = said.iter().flatten().filter(|said| said.image < MOVES).map(age).max().unwrap();
    assert!(behind <= TAG_TTL + CACHE_MAX_AGE, "{behind:?}");
    assert!(stale <= TAG_TTL + CACHE_MAX_AGE, "{stale:?}");
    let history = "SELECT \"to\" AS text FROM tag_moves WHERE name = 'moving' ORDER BY id";
    let history = cluster.database.texts(history).await;
    let order: Vec<_> =
        history.iter().map(|to| images.iter().position(|image| image.digest == *to).unwrap()).collect();
    assert!(order.is_sorted_by(|one, two| one < two), "the tag's history goes back: {order:?}");
    assert_eq!(order.last(), Some(&MOVES));
}
