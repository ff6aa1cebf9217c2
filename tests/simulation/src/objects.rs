//! The object store in memory, behind a way that can fail.

use crate::bug::Bug;
use crate::world::{Fate, Node, State, Way, World, pause};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream, stream::BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::collections::BTreeMap;
use std::time::Duration;
use std::{fmt, sync::Arc};

/// How much older a planted bug makes objects look.
const TOO_EARLY: Duration = Duration::from_secs(3600);

/// All objects.
#[derive(Default)]
pub(crate) struct Objects {
    by_key: BTreeMap<String, Object>,
    stored: usize,
}

/// An object.
pub(crate) struct Object {
    pub(crate) bytes: Bytes,
    pub(crate) stored_ms: u64,
    pub(crate) by: Node,
    /// How many were stored before it: keys are random, and a trace has to repeat.
    pub(crate) number: usize,
}

impl Objects {
    pub(crate) fn get(&self, key: &str) -> Option<&Object> {
        self.by_key.get(key)
    }

    /// The one stored last.
    pub(crate) fn newest(&self) -> Option<(&String, &Object)> {
        self.by_key.iter().max_by_key(|(_, object)| object.number)
    }

    fn put(&mut self, key: &str, object: Object, mode: &PutMode) -> Result<usize> {
        if *mode == PutMode::Create && self.by_key.contains_key(key) {
            return Err(Error::AlreadyExists { path: key.into(), source: "simulated".into() });
        }
        let number = self.stored;
        self.stored += 1;
        self.by_key.insert(key.to_owned(), Object { number, ..object });
        Ok(number)
    }
}

/// A client of the object store.
#[derive(Clone)]
pub(crate) struct Store {
    world: Arc<World>,
    node: Node,
}

impl Store {
    pub(crate) fn new(world: Arc<World>, node: Node) -> Arc<Store> {
        Arc::new(Store { world, node })
    }

    /// A request. It runs on by itself when its caller has gone, as it does on a server.
    async fn call<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut State, u64) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (before, after, known) = match self.world.fate(self.node, Way::Objects) {
            Fate::Refused { after } => {
                pause(after).await;
                return Err(failed());
            }
            Fate::Happens { before, after, known } => (before, after, known),
        };
        let world = Arc::clone(&self.world);
        let request = tokio::spawn(async move {
            pause(before).await;
            world.step(act)
        });
        let given = request.await.expect("a request neither panics nor is aborted");
        pause(after).await;
        if known { given } else { Err(failed()) }
    }

    async fn remove(self, key: Path) -> Result<Path> {
        let (node, removed) = (self.node, key.clone());
        self.call(move |state, now_ms| {
            let State { tables, objects, witness, trace, .. } = state;
            let Some(object) = objects.by_key.remove(removed.as_ref()) else {
                return Err(Error::NotFound { path: removed.into(), source: "simulated".into() });
            };
            trace.step(format_args!("{node} removes object {}", object.number));
            witness.removed(removed.as_ref(), &object, node, tables, now_ms);
            Ok(())
        })
        .await?;
        Ok(key)
    }

    fn listed(&self, prefix: &str) -> Vec<ObjectMeta> {
        let early =
            if self.world.bug == Some(Bug::DatesObjectsTooEarly) { TOO_EARLY } else { Duration::ZERO };
        let state = self.world.state();
        let is_there = |key: &str| {
            key.strip_prefix(prefix).is_some_and(|rest| prefix.is_empty() || rest.starts_with('/'))
        };
        let mut found: Vec<_> = state.objects.by_key.iter().filter(|(key, _)| is_there(key)).collect();
        found.sort_by_key(|(_, object)| object.number);
        let meta = |(key, object): (&String, &Object)| meta(key, object, early);
        found.into_iter().map(meta).collect()
    }
}

fn meta(key: &str, object: &Object, early: Duration) -> ObjectMeta {
    let mut meta = ObjectMeta {
        location: Path::from(key),
        last_modified: Default::default(),
        size: object.bytes.len() as u64,
        e_tag: None,
        version: None,
    };
    meta.last_modified += Duration::from_millis(object.stored_ms) - early;
    meta
}

fn failed() -> Error {
    Error::Generic { store: "simulation", source: "simulated".into() }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated objects")
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let (node, key, bytes) = (self.node, location.clone(), Bytes::from(payload));
        let lost = self.world.bug == Some(Bug::LosesObject) && self.world.below(8) == 0;
        self.call(move |state, now_ms| {
            if !lost {
                let object = Object { bytes, stored_ms: now_ms, by: node, number: 0 };
                let number = state.objects.put(key.as_ref(), object, &options.mode)?;
                state.trace.step(format_args!("{node} stores object {number}"));
            }
            Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
        })
        .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let key = location.clone();
        self.call(move |state, _| {
            let State { tables, objects, witness, .. } = state;
            let Some(object) = objects.get(key.as_ref()) else {
                return Err(Error::NotFound { path: key.into(), source: "simulated".into() });
            };
            if !options.head {
                witness.read(key.as_ref(), object.number, tables);
            }
            let (meta, size) = (meta(key.as_ref(), object, Duration::ZERO), object.bytes.len() as u64);
            let range = match &options.range {
                Some(range) => range
                    .as_range(size)
                    .map_err(|error| Error::Generic { store: "simulation", source: error.into() })?,
                None => 0..size,
            };
            let bytes = object.bytes.slice(range.start as usize..range.end as usize);
            let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
            Ok(GetResult {
                payload,
                meta,
                range,
                attributes: Default::default(),
                extensions: Default::default(),
            })
        })
        .await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move { store.remove(location?).await }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.map(Path::to_string).unwrap_or_default());
        let listed = async move { store.call(|_, _| Ok(())).await.map(|()| store.listed(&prefix)) };
        let each = |listed: Result<Vec<ObjectMeta>>| match listed {
            Ok(found) => found.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        listed.map(move |listed| stream::iter(each(listed))).flatten_stream().boxed()
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "uploads in parts".into(), implementer: "simulation".into() })
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(Error::NotImplemented { operation: "listing levels".into(), implementer: "simulation".into() })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copies".into(), implementer: "simulation".into() })
    }
}
