//! What is planned again after a restart.

use flowstone_sql::catalog::{CatalogChange, SchemaId};

use super::*;

const GOOD: ObjectId = ObjectId::User(2000);
const GONE: ObjectId = ObjectId::User(2001);
const ABOVE: ObjectId = ObjectId::User(2002);

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_cannot_be_planned_any_more_keeps_no_other_from_it() {
    let mut catalog = Catalog::initial();
    for (id, name, query) in [
        (GOOD, "good", "SELECT 1 AS a"),
        (
            GONE,
            "gone",
            "SELECT a_function_of_an_earlier_release(1) AS a",
        ),
        (ABOVE, "above", "SELECT 2 AS a"),
    ] {
        let item = Item {
            id,
            oid: 30_000,
            schema: SchemaId(1),
            name: name.to_owned(),
            create_sql: String::new(),
            depends_on: Vec::new(),
            comment: None,
            column_comments: BTreeMap::new(),
            kind: ItemKind::MaterializedView {
                columns: Vec::new(),
                query: query.to_owned(),
                key: None,
            },
        };
        catalog
            .apply(&[CatalogChange::PutItem(Box::new(item))])
            .unwrap();
    }
    let catalog = Arc::new(catalog);
    let planned = plan_each(&catalog, &[GOOD, GONE, ABOVE]).await.unwrap();
    let planned: Vec<(ObjectId, Result<ObjectId, String>)> = planned
        .into_iter()
        .map(|(id, planned)| {
            let planned = planned.map(|dataflow| dataflow.description.id);
            (id, planned.map_err(|error| error.to_string()))
        })
        .collect();
    assert_eq!(planned.len(), 3);
    for (id, planned) in planned {
        match planned {
            Ok(planned) => assert!(planned == id && id != GONE, "{id}"),
            Err(error) => {
                assert_eq!(id, GONE, "{error}");
                assert!(
                    error.contains("a_function_of_an_earlier_release"),
                    "{error}"
                );
            }
        }
    }
    // A statement that makes them is refused as a whole.
    assert!(plan_dataflows(&catalog, &[GOOD, GONE]).await.is_err());
}
