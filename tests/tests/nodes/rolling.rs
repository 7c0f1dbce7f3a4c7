//! Every process is restarted in turn while clients pull.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidegate_tests::{
    assert_eventually,
    cluster::{Cluster, NAME, UPSTREAM_NAME},
    image::Image,
    process::TidegateProcess,
    puller::{Pull, Puller},
};
use tokio::sync::watch;

const CLIENTS: usize = 4;
const IMAGES: usize = 120;

fn tag(number: usize) -> String {
    format!("v{number}")
}

/// Steady load: clients that pull images, half of them for the first time as long as there are such.
struct Load {
    puller: Puller,
    images: Vec<Image>,
    next: AtomicUsize,
    pulled: AtomicUsize,
}

impl Load {
    /// Pulls until told.
    async fn client(self: Arc<Self>, stop: watch::Receiver<()>) -> Vec<Pull> {
        let mut pulls = Vec::new();
        while stop.has_changed().is_ok() {
            let new = self.next.fetch_add(1, Ordering::SeqCst).min(IMAGES - 1);
            for number in [new, new / 2] {
                let pull = self.puller.image(NAME, &tag(number), &self.images[number]).await;
                pulls.push(pull.unwrap_or_else(|error| panic!("{error}")));
                self.pulled.fetch_add(1, Ordering::SeqCst);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        pulls
    }

    /// Waits until each client has pulled a few times more.
    async fn goes_on(&self) {
        let before = self.pulled.load(Ordering::SeqCst);
        assert_eventually!(self.pulled.load(Ordering::SeqCst) >= before + 3 * CLIENTS, "clients pull on");
    }
}

/// Ends a process, lets the others carry the load, and starts it again.
async fn restart(process: &mut TidegateProcess, load: &Load) {
    process.terminate();
    assert!(process.wait().await.success());
    load.goes_on().await;
    process.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_fails_no_pull() {
    let builder = Cluster::builder().contents(3).apis(2);
    // Longer than registry-api and the balancer need to notice.
    let mut cluster = builder.api("drain_grace = \"1s\"").content("drain_grace = \"3s\"").start().await;
    let image = |number| Image::random(u64::try_from(number).unwrap() + 1, &[200_000, 50_000]);
    let images: Vec<_> = (0..IMAGES).map(image).collect();
    for (number, image) in images.iter().enumerate() {
        cluster.upstream.put_image(UPSTREAM_NAME, &tag(number), image);
    }
    let (stop, stopped) = watch::channel(());
    let puller = cluster.puller();
    let load = Arc::new(Load { puller, images, next: AtomicUsize::new(0), pulled: AtomicUsize::new(0) });
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| tokio::spawn(Arc::clone(&load).client(stopped.clone()))).collect();
    load.goes_on().await;

    for number in 0..cluster.apis.len() {
        restart(&mut cluster.apis[number], &load).await;
        load.goes_on().await;
    }
    for number in 0..cluster.contents.len() {
        restart(&mut cluster.contents[number], &load).await;
        // As whoever rolls out waits for the new one to be ready.
        cluster.all_nodes_live().await;
        load.goes_on().await;
    }
    drop((stop, stopped));
    let mut pulls = Vec::new();
    for client in clients {
        pulls.extend(client.await.unwrap());
    }

    let all = Pull::sum(&pulls);
    assert_eq!((cluster.api_balancer.lost(), all.unavailable, all.broken), (0, 0, 0), "{all:?}");
    cluster.assert_no_leases().await;
}
