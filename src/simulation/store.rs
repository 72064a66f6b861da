//! A bucket in memory that misbehaves as stores and networks do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::schedule::{Etags, Step, Write};
use super::world::World;

#[derive(Clone, Debug)]
struct Version {
    /// Its ETag, or what tells it from others where there is none.
    name: String,
    written_at: SystemTime,
    content: Bytes,
}

/// The bucket; keeps the versions that were overwritten, since a listing may show one of them.
#[derive(Debug)]
pub(super) struct FaultyStore {
    world: Arc<World>,
    objects: Mutex<BTreeMap<String, Vec<Version>>>,
}

impl FaultyStore {
    pub(super) fn new(world: Arc<World>) -> Arc<Self> {
        Arc::new(Self { world, objects: Mutex::default() })
    }

    /// Puts a version in place, all at once.
    pub(super) fn put(&self, write: &Write) {
        let mut objects = self.objects.lock().unwrap();
        let versions = objects.entry(write.key.clone()).or_default();
        let number = versions.len() as u64;
        let written_at = SystemTime::UNIX_EPOCH + Duration::from_secs(number);
        let etag = format!("\"{}.{number}\"", write.key.len());
        let name = match self.world.schedule.etags {
            Etags::Strong => etag,
            Etags::Weak => format!("W/{etag}"),
            Etags::Missing => format!("{}-{}", write.content.len(), number * 1000),
        };
        self.world.note(format!("put {} {name}, {} bytes", write.key, write.content.len()));
        versions.push(Version { name, written_at, content: write.content.clone() });
    }

    /// Each object and the name of the version it has.
    pub(super) fn versions(&self) -> Vec<(String, String)> {
        let objects = self.objects.lock().unwrap();
        let last = |versions: &Vec<Version>| versions.last().map(|version| version.name.clone());
        objects.iter().filter_map(|(key, versions)| Some((key.clone(), last(versions)?))).collect()
    }

    fn current(&self, key: &Path) -> Result<Version> {
        let objects = self.objects.lock().unwrap();
        objects.get(key.as_ref()).and_then(|versions| versions.last().cloned()).ok_or_else(|| not_found(key))
    }

    /// Objects below a prefix as a listing shows them: some are missing, some are there twice, some are old.
    fn listed(&self, prefix: Option<&Path>) -> Vec<ObjectMeta> {
        let trouble = &self.world.schedule.store;
        let objects = self.objects.lock().unwrap();
        let mut listed = Vec::new();
        for (key, versions) in objects.iter() {
            let location = Path::from(key.as_str());
            if prefix.is_some_and(|prefix| !location.prefix_matches(prefix)) {
                continue;
            }
            let mut shown = versions.len() - 1;
            if self.world.strikes(trouble) {
                match self.world.below(3) {
                    0 => {
                        self.world.note(format!("the listing lacks {key}"));
                        continue;
                    }
                    1 => {
                        self.world.note(format!("the listing has {key} twice"));
                        listed.push(self.meta(&location, &versions[shown]));
                    }
                    _ if shown > 0 => {
                        shown = self.world.below(shown);
                        self.world.note(format!("the listing has {key} as {}", versions[shown].name));
                    }
                    _ => continue,
                }
            }
            listed.push(self.meta(&location, &versions[shown]));
        }
        listed
    }

    fn meta(&self, location: &Path, version: &Version) -> ObjectMeta {
        ObjectMeta {
            location: location.clone(),
            last_modified: version.written_at.into(),
            size: version.content.len() as u64,
            e_tag: (self.world.schedule.etags != Etags::Missing).then(|| version.name.clone()),
            version: None,
        }
    }

    /// A request that is answered with an error, or not in time.
    async fn refused(&self, what: &str) -> Result<()> {
        let trouble = &self.world.schedule.store;
        self.world.pass(2..60).await;
        if !self.world.is_out(trouble) && !self.world.chance(trouble.percent / 3)
            || !self.world.strikes(trouble)
        {
            return Ok(());
        }
        let error = match self.world.below(4) {
            0 => "500 InternalError",
            1 => "503 SlowDown",
            2 => "connection reset",
            _ => {
                self.world.pass(10_000..30_001).await;
                "no byte for 30 s"
            }
        };
        self.world.note(format!("{what}: {error}"));
        Err(generic(error))
    }
}

fn generic(error: &'static str) -> Error {
    Error::Generic { store: "simulation", source: error.into() }
}

fn not_found(key: &Path) -> Error {
    Error::NotFound { path: key.to_string(), source: "NoSuchKey".into() }
}

fn moved(key: &Path) -> Error {
    Error::Precondition { path: key.to_string(), source: "412 PreconditionFailed".into() }
}

impl std::fmt::Display for FaultyStore {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("FaultyStore")
    }
}

/// How a body comes to its end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Body {
    Whole,
    /// With an error after so many bytes.
    Reset(usize),
    /// As if it were whole, after so many bytes.
    Truncated(usize),
    /// With an error, after a time without a byte.
    Stalled(usize),
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let world = Arc::clone(&self.world);
        let trouble = &world.schedule.store;
        self.refused(&format!("get {location}")).await?;
        let version = self.current(location)?;
        let is_it = |wanted: &String| *wanted == version.name && world.schedule.etags == Etags::Strong;
        if options.if_match.as_ref().is_some_and(|wanted| !is_it(wanted)) {
            world.note(format!("get {location}: 412, it is {}", version.name));
            return Err(moved(location));
        }
        if !options.head && options.if_match.is_some() && world.strikes(trouble) && world.chance(20) {
            world.note(format!("get {location}: 412 out of the blue"));
            return Err(moved(location));
        }
        let size = version.content.len() as u64;
        let range = match options.range {
            Some(GetRange::Bounded(range)) => range.start.min(size)..range.end.min(size),
            _ => 0..size,
        };
        let mut meta = self.meta(location, &version);
        if !options.head && range.start > 0 {
            world.step(Step::ReadingSeam).await;
        }
        let [first, end] = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
        let wanted = version.content.slice(first..end);
        let mut body = Body::Whole;
        if !options.head && !wanted.is_empty() && world.strikes(trouble) {
            let cut = world.below(wanted.len());
            body = match world.below(3) {
                0 => Body::Reset(cut),
                1 => Body::Truncated(cut),
                _ => Body::Stalled(cut),
            };
            if world.chance(20) {
                // A length that is not the body's.
                meta.size += 1 + cut as u64;
            }
        }
        world.note(format!("get {location} {} {range:?} {body:?}", version.name));
        let piece = 1 + world.below([50, 500, 5000, 100_000][world.below(4)]);
        let stream = stream::unfold((0, false), move |(at, over)| {
            let (world, wanted) = (Arc::clone(&world), wanted.clone());
            async move {
                let (end, error) = match body {
                    Body::Whole => (wanted.len(), None),
                    Body::Truncated(end) => (end, None),
                    Body::Reset(end) => (end, Some("connection reset")),
                    Body::Stalled(end) => (end, Some("no byte for 30 s")),
                };
                if at < end {
                    world.pass(0..15).await;
                    let next = (at + piece).min(end);
                    return Some((Ok(wanted.slice(at..next)), (next, over)));
                }
                let error = error.filter(|_| !over)?;
                if let Body::Stalled(_) = body {
                    world.pass(30_000..30_001).await;
                }
                Some((Err(generic(error)), (at, true)))
            }
        });
        let payload = GetResultPayload::Stream(stream.boxed());
        let (attributes, extensions) = Default::default();
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (world, listed) = (Arc::clone(&self.world), self.listed(prefix));
        let trouble = &self.world.schedule.store;
        let strikes = self.world.strikes(trouble);
        let breaks_at = (strikes && self.world.chance(30)).then(|| self.world.below(listed.len() + 1));
        let start = stream::once(async move { world.pass(2..80).await });
        let entries = listed.into_iter().enumerate();
        let mut entries: Vec<_> = entries
            .take_while(|(at, _)| breaks_at.is_none_or(|end| *at < end))
            .map(|(_, meta)| Ok(meta))
            .collect();
        if breaks_at.is_some() {
            self.world.note(format!("the listing of {prefix:?} breaks off"));
            entries.push(Err(generic("connection reset")));
        }
        let mut entries = Some(entries);
        start.flat_map(move |()| stream::iter(entries.take().unwrap_or_default())).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.refused(&format!("list {prefix:?}")).await?;
        let parts = prefix.map_or(0, |prefix| prefix.parts().count());
        let (mut folders, mut objects) = (BTreeSet::new(), Vec::new());
        for meta in self.listed(prefix) {
            match meta.location.parts().count() > parts + 1 {
                true => {
                    folders.insert(meta.location.parts().take(parts + 1).collect::<Path>());
                }
                false => objects.push(meta),
            }
        }
        let common_prefixes = folders.into_iter().collect();
        Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
    }

    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(generic("the bucket is read only"))
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(generic("the bucket is read only"))
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::once(async { Err(generic("the bucket is read only")) }).boxed()
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(generic("the bucket is read only"))
    }
}
