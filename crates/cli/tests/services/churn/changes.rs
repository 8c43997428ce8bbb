//! Makes and changes Services by the API, many at a time.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::runtime::Runtime;

use super::model::{Changing, Model, Share, Write};
use crate::support::Lab;

/// How many changes are under way at once.
const AT_ONCE: usize = 8;

/// How often each kind of change was made.
pub type Done = BTreeMap<&'static str, u64>;

/// The API of a lab.
pub struct Api {
    runtime: Runtime,
    client: Client,
}

impl Api {
    pub fn of(lab: &Lab) -> Self {
        let runtime = Runtime::new().unwrap();
        let client = runtime.block_on(async {
            let read = Kubeconfig::read_from(lab.kubeconfig()).unwrap();
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(read, &options).await.unwrap();
            Client::try_from(config).unwrap()
        });
        Self { runtime, client }
    }

    /// Makes all of them.
    pub fn make(&self, model: &mut Model) {
        self.side_by_side(model, |share| {
            for (service, writes) in share.begin() {
                self.write(service, writes);
            }
            Done::new()
        });
    }

    /// Changes one or another so often a second: for as long, and so many times, at least.
    pub fn change(&self, model: &mut Model, rate: u32, time: Duration, times: u64) -> Done {
        let pause = Duration::from_secs(1) * AT_ONCE as u32 / rate;
        let start = Instant::now();
        self.side_by_side(model, |share| {
            let (mut done, mut count) = (Done::new(), 0);
            while start.elapsed() < time || count * (AT_ONCE as u64) < times {
                let next = Instant::now() + pause;
                let (service, what, writes) = share.change();
                self.write(service, writes);
                *done.entry(what).or_default() += 1;
                count += 1;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            done
        })
    }

    fn side_by_side(&self, model: &mut Model, work: impl Fn(&mut Share) -> Done + Sync) -> Done {
        thread::scope(|scope| {
            let work = &work;
            let shares = model.shares(AT_ONCE);
            let at_work: Vec<_> = shares
                .map(|mut share| scope.spawn(move || work(&mut share)))
                .collect();
            let mut all = Done::new();
            for (what, count) in at_work.into_iter().flat_map(|work| work.join().unwrap()) {
                *all.entry(what).or_default() += count;
            }
            all
        })
    }

    fn write(&self, service: &Changing, writes: Vec<Write>) {
        for write in writes {
            let written = self.runtime.block_on(self.write_one(service, write));
            written.unwrap_or_else(|error| panic!("{}: {error}", service.name));
        }
    }

    async fn write_one(&self, service: &Changing, write: Write) -> kube::Result<()> {
        let services: kube::Api<Service> = kube::Api::default_namespaced(self.client.clone());
        let slices: kube::Api<EndpointSlice> = kube::Api::default_namespaced(self.client.clone());
        let name = &service.name;
        let slice_name = |family| service.slice_name(family);
        match write {
            Write::CreateService(object) => {
                let object = serde_json::from_value(object).unwrap();
                services.create(&PostParams::default(), &object).await?;
            }
            Write::PatchService(patch) => {
                let patch = Patch::Merge(patch);
                services.patch(name, &PatchParams::default(), &patch).await?;
            }
            Write::DeleteService => {
                services.delete(name, &DeleteParams::default()).await?;
            }
            Write::CreateSlices => {
                for family in 0..2 {
                    let object = serde_json::from_value(service.slice(family)).unwrap();
                    slices.create(&PostParams::default(), &object).await?;
                }
            }
            Write::PatchSlice(family) => {
                let patch = Patch::Merge(service.slice_patch(family));
                slices
                    .patch(&slice_name(family), &PatchParams::default(), &patch)
                    .await?;
            }
            Write::DeleteSlices => {
                for family in 0..2 {
                    slices
                        .delete(&slice_name(family), &DeleteParams::default())
                        .await?;
                }
            }
        }
        Ok(())
    }
}
