//! A store that fails in the middle of an object.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

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
