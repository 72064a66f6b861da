//! Workspace ids of the resources that Azure's records name, put in their origin before they are decoded.

use std::sync::Arc;

use memchr::memmem;

use crate::azure_workspace::Workspaces;
use crate::chunk::Origin;

/// What every record has before its resource's id: `"resourceId":"` of a diagnostic setting, `"_ResourceId":"` of Log
/// Analytics, with or without a blank. In a text within the record the quotes would be escaped.
const KEY: &[u8] = b"esourceId\"";

/// The origin of an object whose path names a resource: its workspace is known for all of its records.
pub(super) async fn origin(
    origin: Arc<Origin>,
    resource: Option<&str>,
    workspaces: Option<&Workspaces>,
) -> Arc<Origin> {
    let (Some(resource), Some(workspaces)) = (resource, workspaces) else { return origin };
    let Some(id) = workspaces.id(resource).await else { return origin };
    let mut origin = Arc::unwrap_or_clone(origin);
    origin.workspace = Some(Arc::clone(&id));
    origin.workspace_ids.insert(resource.to_owned(), id);
    Arc::new(origin)
}

/// Adds to an origin the ids of all workspaces that the records in a text name.
pub(super) async fn records(origin: &mut Arc<Origin>, text: &[u8], workspaces: &Workspaces) {
    let mut last: &[u8] = &[];
    for resource in resources(text) {
        // Mostly all records of an object name the same.
        if resource == last {
            continue;
        }
        last = resource;
        let resource = String::from_utf8_lossy(resource).to_ascii_lowercase();
        if origin.workspace_ids.contains_key(&resource) {
            continue;
        }
        if let Some(id) = workspaces.id(&resource).await {
            let mut known = Origin::clone(origin);
            known.workspace_ids.insert(resource, id);
            *origin = Arc::new(known);
        }
    }
}

/// The resource ids in a text of records.
fn resources(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    memmem::find_iter(text, KEY).filter_map(move |at| {
        let rest = text.get(at + KEY.len()..)?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
        let rest = rest.strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', rest)?;
        rest.get(..end).filter(|resource| resource.starts_with(b"/"))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn resources_are_found_in_records_and_not_in_texts_within_them() {
        let text = br#"{"resourceId":"/A","x":"{\"resourceId\":\"/no\"}"}
            {"_ResourceId" : "/b","WorkspaceResourceId":"c","resourceId":null,"resourceId":"/cut"#;
        assert_eq!(resources(text).collect::<Vec<_>>(), [b"/A".as_slice(), b"/b"]);
    }

    #[tokio::test]
    async fn an_origin_learns_the_workspaces_of_its_records() {
        let ids = HashMap::from([("/a".to_owned(), "1".to_owned()), ("/b".to_owned(), "2".to_owned())]);
        let workspaces = Workspaces::configured(ids);
        let mut known = origin(Arc::new(Origin::of_object("o")), Some("/a"), Some(&workspaces)).await;
        assert_eq!(known.workspace.as_deref(), Some("1"));
        records(
            &mut known,
            br#"{"_ResourceId":"/A"} {"_ResourceId":"/B"} {"_ResourceId":"/C"}"#,
            &workspaces,
        )
        .await;
        assert_eq!(known.workspace_ids.get("/a").map(|id| &**id), Some("1"));
        assert_eq!(known.workspace_ids.get("/b").map(|id| &**id), Some("2"));
        assert_eq!((known.workspace_ids.len(), &*known.object), (2, "o"));
    }
}
