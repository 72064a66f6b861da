//! A store whose ETags are weak, as a proxy makes them that compresses answers: no `If-Match` is ever true of them.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::*;

#[derive(Debug)]
struct Weak(Arc<InMemory>);

impl std::fmt::Display for Weak {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Weak")
    }
}

fn weakened(meta: ObjectMeta) -> ObjectMeta {
    ObjectMeta { e_tag: meta.e_tag.map(|etag| format!("W/\"{etag}\"")), ..meta }
}

#[async_trait]
impl ObjectStore for Weak {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.if_match.is_some() {
            let (path, source) = (location.to_string(), "412".into());
            return Err(Error::Precondition { path, source });
        }
        let result = self.0.get_opts(location, options).await?;
        Ok(GetResult { meta: weakened(result.meta.clone()), ..result })
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix).map(|meta| meta.map(weakened)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn objects_of_a_store_whose_etags_are_weak_are_read_and_only_what_is_new_of_them() {
    let mut bench = Bench::new();
    bench.wrapped = Some(Arc::new(Weak(Arc::clone(&bench.store))));
    // Large ones would be read in ranges of one version.
    bench.put(KEY, lines(0, 4000)).await;
    assert_eq!(bench.run().await.texts().len(), 4000);
    bench.put(KEY, lines(0, 4010)).await;
    assert_eq!(bench.run().await.texts().len(), 10);
    assert_eq!(bench.run().await.fetched, 0, "nothing has changed");
}
