//! A store that fails in the middle of an object.

use std::sync::atomic::AtomicU32;

use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    PutMultipartOptions, PutOptions, PutResult, Result,
};

use super::object::ObjectError;
use super::*;

/// A store whose first answers break off in the middle: the version is overwritten at that moment, or the connection
/// is lost. Its first listings may fail, too.
#[derive(Debug)]
pub(super) struct BreakingOff {
    inner: Arc<InMemory>,
    left: AtomicU32,
    overwritten_by: Option<String>,
    listings: AtomicU32,
}

impl BreakingOff {
    /// Breaks off so many answers; with a content, it takes the object's place each time.
    pub(super) fn new(inner: Arc<InMemory>, answers: u32, overwritten_by: Option<String>) -> Self {
        Self { inner, left: answers.into(), overwritten_by, listings: 0.into() }
    }

    /// Fails so many listings of folders.
    pub(super) fn failing_listings(inner: Arc<InMemory>, listings: u32) -> Self {
        Self { listings: listings.into(), ..Self::new(inner, 0, None) }
    }
}

impl std::fmt::Display for BreakingOff {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("BreakingOff")
    }
}

#[async_trait]
impl ObjectStore for BreakingOff {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let head = options.head;
        let result = self.inner.get_opts(location, options).await?;
        if head || self.left.load(Ordering::SeqCst) == 0 {
            return Ok(result);
        }
        self.left.fetch_sub(1, Ordering::SeqCst);
        let (meta, range, attributes) =
            (result.meta.clone(), result.range.clone(), result.attributes.clone());
        let bytes = result.bytes().await?;
        let half = bytes.slice(..bytes.len() * 2 / 3);
        if let Some(content) = &self.overwritten_by {
            self.inner.put(location, PutPayload::from(content.clone().into_bytes())).await?;
        }
        let pieces = vec![Ok(half), Err(Error::Generic { store: "test", source: "connection reset".into() })];
        let pieces =
            if self.overwritten_by.is_some() { pieces.into_iter().take(1).collect() } else { pieces };
        let payload = GetResultPayload::Stream(Box::pin(futures::stream::iter(pieces)));
        Ok(GetResult { payload, meta, range, attributes, extensions: Default::default() })
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        if self.listings.load(Ordering::SeqCst) > 0 {
            self.listings.fetch_sub(1, Ordering::SeqCst);
            return Err(Error::Generic { store: "test", source: "connection reset".into() });
        }
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn an_object_that_changes_while_it_is_read_is_read_as_it_is_then() {
    let bench = Bench::new();
    bench.put(KEY, lines(0, 10)).await;
    let bucket = bench.bucket();
    let running = bucket.start().await.unwrap();
    drop(running);
    let stale = bench.store.head(&Path::from(KEY)).await.unwrap();
    bench.put(KEY, lines(0, 12)).await;
    let (reads_in, mut reads) = mpsc::channel(16);
    let mut reader = bench.reader(reads_in);
    reader.until = Some(Millis::new(stale.last_modified.timestamp_millis()).unwrap());
    let place = layout::Place::default();
    // Where a state is made anew, what came meanwhile must not be taken for delivered.
    reader.read(Found::new(&stale, place.clone()), noon()).await.unwrap();
    assert!(reads.try_recv().is_err());
    reader.until = None;
    // The listing's ETag is refused with 412: the object is looked at again, not skipped.
    reader.read(Found::new(&stale, place.clone()), noon()).await.unwrap();
    let mut outcome = Outcome::default();
    while let Ok(Ok(Read::Chunk(chunk))) = reads.try_recv() {
        take_in(&chunk, &mut outcome);
    }
    assert_eq!(outcome.texts().len(), 12);
    bench.store.delete(&Path::from(KEY)).await.unwrap();
    let gone = reader.read(Found::new(&stale, place), noon()).await;
    assert!(matches!(gone, Err(ObjectError::Gone)), "{gone:?}");
}

#[tokio::test]
async fn a_read_that_breaks_off_goes_on_where_it_was_committed_and_sends_nothing_twice() {
    for overwritten_by in [None, Some(lines(0, 3100))] {
        let expected = if overwritten_by.is_some() { 3100 } else { 3000 };
        let mut bench = Bench::new();
        bench.put(KEY, lines(0, 3000)).await;
        let inner = Arc::clone(&bench.store);
        bench.wrapped = Some(Arc::new(BreakingOff::new(inner, 2, overwritten_by)));
        let outcome = bench.run().await;
        let mut texts = outcome.texts();
        assert_eq!(texts.len(), expected);
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), expected, "no line twice");
    }
}

#[tokio::test]
async fn a_rewritten_object_without_fingerprints_is_shipped_again_only_once_when_its_read_breaks_off() {
    let mut bench = Bench::new();
    bench.put(KEY, lines(0, 3000)).await;
    bench.run().await;
    bench.recommit(|position| position.folded = true, Note::Clear).await;
    bench.put(KEY, lines(10_000, 4000)).await;
    // The first answer tells that the seam differs, the second breaks off.
    bench.wrapped = Some(Arc::new(BreakingOff::new(Arc::clone(&bench.store), 2, None)));
    assert_eq!(bench.run().await.texts().len(), 4000);
}

#[tokio::test]
async fn a_last_line_that_is_overdue_ships_no_other_again_where_fingerprints_are_gone() {
    let bench = Bench::new();
    bench.put(KEY, lines(0, 300)).await;
    bench.run().await;
    let waits = |position: &mut ObjectPosition| {
        (position.waiting, position.compare, position.folded) = (true, true, true);
    };
    bench.recommit(waits, Note::Clear).await;
    assert_eq!(bench.run().await.texts(), Vec::<&str>::new());
}
