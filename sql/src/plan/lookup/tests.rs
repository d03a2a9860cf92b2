//! Which index answers a query for the rows of one key.

use std::collections::BTreeMap;

use super::*;
use crate::catalog::{
    CatalogChange, Cluster, ClusterKind, ClusterSize, Column, IndexKey, Item, Replica, ReplicaId,
    SchemaId,
};
use crate::plan::{PlanContext, plan_query};

const TABLE: ObjectId = ObjectId::User(2000);
/// An index on the column `a` of the table in each of three clusters, the default one last.
const FIRST: ObjectId = ObjectId::User(2001);
const SECOND: ObjectId = ObjectId::User(2002);
const HOME: ObjectId = ObjectId::User(2003);

const CLUSTERS: [ClusterId; 2] = [ClusterId(2), ClusterId(3)];

fn cluster(id: ClusterId, replicas: u64) -> CatalogChange {
    CatalogChange::PutCluster(Cluster {
        id,
        name: format!("c{id}"),
        comment: None,
        kind: ClusterKind::Unmanaged,
        replicas: (0..replicas)
            .map(|number| Replica {
                id: ReplicaId(10 * id.0 + number),
                name: format!("r{number}"),
                size: Some(ClusterSize::Cc25),
            })
            .collect(),
    })
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::initial();
    let column = |name: &str| Column {
        name: name.to_owned(),
        sql_type: SqlType::Int4,
        nullable: true,
        default: None,
    };
    let table = ItemKind::Table {
        columns: vec![column("a"), column("b")],
        key: None,
        source: None,
    };
    let index = || ItemKind::Index {
        on: TABLE,
        key: vec![IndexKey {
            expression: "a".to_owned(),
            column: Some(0),
        }],
    };
    let mut changes: Vec<CatalogChange> = CLUSTERS.map(|id| cluster(id, 1)).into();
    for (id, name, kind, depends_on) in [
        (TABLE, "t", table, vec![]),
        (FIRST, "first", index(), vec![TABLE]),
        (SECOND, "second", index(), vec![TABLE]),
        (HOME, "home", index(), vec![TABLE]),
    ] {
        changes.push(CatalogChange::PutItem(Box::new(Item {
            id,
            oid: 30_000,
            schema: SchemaId(1),
            name: name.to_owned(),
            create_sql: String::new(),
            depends_on,
            comment: None,
            column_comments: BTreeMap::new(),
            kind,
        })));
    }
    changes.extend([
        CatalogChange::PutItemCluster(FIRST, CLUSTERS[0]),
        CatalogChange::PutItemCluster(SECOND, CLUSTERS[1]),
    ]);
    catalog.apply(&changes).unwrap();
    catalog
}

/// The index that answers `SELECT b FROM t WHERE a = 1` for a session in a cluster.
fn index(catalog: &Catalog, cluster: Option<ClusterId>, hydrated: &[ObjectId]) -> Option<ObjectId> {
    lookup(catalog, cluster, hydrated).map(|lookup| lookup.index)
}

fn lookup(
    catalog: &Catalog,
    cluster: Option<ClusterId>,
    hydrated: &[ObjectId],
) -> Option<LookupPlan> {
    let ctx = PlanContext {
        catalog,
        database: "materialize",
        search_path: &["public".to_owned()],
        user: "materialize",
        now_ms: 0,
        time_zone: &flowstone_types::datetime::TimeZone::UTC,
        transaction_epoch: None,
        variables: &|_| None,
        settings: &Vec::new,
        bytes: &|_| None,
        assigns: false,
        maintained: false,
        text: "",
    };
    let query = crate::parse::parse_query("SELECT b FROM t WHERE a = 1").unwrap();
    let planned = plan_query(&ctx, &query, &[]).unwrap();
    let is_hydrated = |id: ObjectId| hydrated.contains(&id);
    recognise_lookup(catalog, &planned, cluster, &is_hydrated)
}

#[test]
fn the_index_in_the_cluster_of_the_session_answers() {
    let catalog = catalog();
    let all = [FIRST, SECOND, HOME];
    let chosen = |cluster| index(&catalog, cluster, &all);
    assert_eq!(chosen(Some(CLUSTERS[0])), Some(FIRST));
    assert_eq!(chosen(Some(CLUSTERS[1])), Some(SECOND));
    assert_eq!(chosen(Some(ClusterId::DEFAULT)), Some(HOME));
    assert_eq!(chosen(None), Some(HOME), "the session's does not exist");
}

#[test]
fn an_index_that_would_have_to_be_waited_for_is_not_used() {
    let mut catalog = catalog();
    let here = Some(CLUSTERS[1]);
    assert_eq!(index(&catalog, here, &[FIRST, HOME]), Some(HOME));
    assert_eq!(index(&catalog, here, &[FIRST]), Some(FIRST));
    assert_eq!(index(&catalog, here, &[]), None);
    catalog.apply(&[cluster(CLUSTERS[1], 0)]).unwrap();
    assert_eq!(index(&catalog, here, &[SECOND, FIRST]), Some(FIRST));
    assert_eq!(index(&catalog, here, &[SECOND]), None);
}

#[test]
fn what_is_better_than_the_index_that_answers_is_known() {
    let catalog = catalog();
    let here = Some(CLUSTERS[1]);
    let better = |hydrated: &[ObjectId]| lookup(&catalog, here, hydrated).unwrap().better;
    assert_eq!(better(&[FIRST]), [SECOND, HOME]);
    assert_eq!(better(&[FIRST, HOME]), [SECOND]);
    assert!(better(&[SECOND]).is_empty());
}
