//! The relations of `mz_catalog` and `mz_internal`: names, columns and types as Materialize has them. Privileges are lists of text.

pub(super) mod catalog {
    //! `mz_catalog`: what exists.

    use super::super::{Kind, Relation, column, declare, nullable};
    use super::super::{cluster_rows, mz_rows};

    declare! { "mz_catalog":
        16_700 "mz_databases" mz_rows::databases {
            "id": Text, "oid": Oid, "name": Text, "owner_id": Text, "privileges": TextArray,
        }
        16_701 "mz_schemas" mz_rows::schemas {
            "id": Text, "oid": Oid, "database_id": Text null, "name": Text, "owner_id": Text, "privileges": TextArray,
        }
        16_702 "mz_tables" mz_rows::tables {
            "id": Text, "oid": Oid, "schema_id": Text, "name": Text, "owner_id": Text, "privileges": TextArray, "create_sql": Text null,
            "redacted_create_sql": Text null, "source_id": Text null,
        }
        16_703 "mz_views" mz_rows::views {
            "id": Text, "oid": Oid, "schema_id": Text, "name": Text, "definition": Text, "owner_id": Text, "privileges": TextArray,
            "create_sql": Text, "redacted_create_sql": Text,
        }
        16_704 "mz_materialized_views" mz_rows::materialized_views {
            "id": Text, "oid": Oid, "schema_id": Text, "name": Text, "cluster_id": Text, "definition": Text, "owner_id": Text,
            "privileges": TextArray, "create_sql": Text, "redacted_create_sql": Text,
        }
        16_705 "mz_indexes" mz_rows::indexes {
            "id": Text, "oid": Oid, "name": Text, "on_id": Text, "cluster_id": Text, "owner_id": Text, "create_sql": Text,
            "redacted_create_sql": Text,
        }
        16_706 "mz_index_columns" mz_rows::index_columns {
            "index_id": Text, "index_position": UInt8, "on_position": UInt8 null, "on_expression": Text null, "nullable": Bool,
        }
        16_707 "mz_columns" mz_rows::columns {
            "id": Text, "name": Text, "position": UInt8, "nullable": Bool, "type": Text, "default": Text null, "type_oid": Oid, "type_mod": Int4,
        }
        16_708 "mz_types" mz_rows::types {
            "id": Text, "oid": Oid, "schema_id": Text, "name": Text, "category": Text, "owner_id": Text, "privileges": TextArray,
            "create_sql": Text null, "redacted_create_sql": Text null,
        }
        16_709 "mz_secrets" mz_rows::secrets {
            "id": Text, "oid": Oid, "schema_id": Text, "name": Text, "owner_id": Text, "privileges": TextArray,
        }
        16_710 "mz_connections" mz_rows::connections {
            "id": Text, "oid": Oid, "schema_id": Text, "name": Text, "type": Text, "owner_id": Text, "privileges": TextArray, "create_sql": Text,
            "redacted_create_sql": Text,
        }
        16_711 "mz_sources" mz_rows::sources {
            "id": Text, "oid": Oid, "schema_id": Text, "name": Text, "type": Text, "connection_id": Text null, "size": Text null,
            "envelope_type": Text null, "key_format": Text null, "value_format": Text null, "cluster_id": Text null, "owner_id": Text,
            "privileges": TextArray, "create_sql": Text null, "redacted_create_sql": Text null,
        }
        16_712 "mz_sinks" mz_rows::sinks {
            "id": Text, "oid": Oid, "schema_id": Text, "name": Text, "type": Text, "connection_id": Text null, "size": Text null,
            "envelope_type": Text null, "format": Text null, "key_format": Text null, "value_format": Text null, "cluster_id": Text,
            "owner_id": Text, "create_sql": Text, "redacted_create_sql": Text,
        }
        16_713 "mz_roles" mz_rows::roles {
            "id": Text, "oid": Oid, "name": Text, "inherit": Bool, "rolcanlogin": Bool null, "rolsuper": Bool null,
        }
        16_714 "mz_role_members" mz_rows::empty { "role_id": Text, "member": Text, "grantor": Text }
        16_715 "mz_clusters" cluster_rows::clusters {
            "id": Text, "name": Text, "owner_id": Text, "privileges": TextArray, "managed": Bool, "size": Text null,
            "replication_factor": UInt4 null, "disk": Bool null, "availability_zones": TextArray null, "introspection_debugging": Bool null,
            "introspection_interval": Interval null,
        }
        16_716 "mz_cluster_replicas" cluster_rows::cluster_replicas {
            "id": Text, "name": Text, "cluster_id": Text, "size": Text null, "availability_zone": Text null, "owner_id": Text, "disk": Bool null,
        }
        16_717 "mz_objects" mz_rows::objects {
            "id": Text, "oid": Oid, "schema_id": Text, "name": Text, "type": Text, "owner_id": Text, "cluster_id": Text null,
            "privileges": TextArray null,
        }
        16_718 "mz_relations" mz_rows::relations {
            "id": Text, "oid": Oid, "schema_id": Text, "name": Text, "type": Text, "owner_id": Text, "cluster_id": Text null,
            "privileges": TextArray,
        }
        16_719 "mz_ssh_tunnel_connections" mz_rows::empty { "id": Text, "public_key_1": Text, "public_key_2": Text }
        16_720 "mz_aws_privatelink_connections" mz_rows::empty { "id": Text, "principal": Text }
        16_721 "mz_egress_ips" mz_rows::empty { "egress_ip": Text, "prefix_length": Int4, "cidr": Text }
        16_722 "mz_kafka_connections" mz_rows::connector_connections { "id": Text, "brokers": TextArray, "sink_progress_topic": Text }
        16_723 "mz_kafka_sources" mz_rows::connector_sources { "id": Text, "group_id_prefix": Text null, "topic": Text }
        16_724 "mz_array_types" mz_rows::array_types { "id": Text, "element_id": Text }
        16_725 "mz_base_types" mz_rows::base_types { "id": Text }
        16_726 "mz_list_types" mz_rows::empty { "id": Text, "element_id": Text, "element_modifiers": TextArray null }
        16_727 "mz_map_types" mz_rows::empty { "id": Text, "key_id": Text, "value_id": Text }
        16_728 "mz_default_privileges" mz_rows::empty {
            "role_id": Text, "database_id": Text null, "schema_id": Text null, "object_type": Text, "grantee": Text, "privileges": Text,
        }
        16_729 "mz_cluster_replica_sizes" cluster_rows::replica_sizes {
            "size": Text, "processes": UInt8, "workers": UInt8, "cpu_nano_cores": UInt8, "memory_bytes": UInt8 null, "disk_bytes": UInt8 null,
            "credits_per_hour": Numeric null,
        }
        16_730 "mz_kafka_sinks" mz_rows::connector_sinks { "id": Text, "topic": Text }
    }
}

pub(super) mod internal {
    //! `mz_internal`: what is going on.

    use super::super::{Kind, Relation, column, declare, nullable};
    use super::super::{cluster_rows, mz_rows};

    declare! { "mz_internal":
        16_800 "mz_source_statistics" mz_rows::source_statistics {
            "id": Text, "replica_id": Text null, "messages_received": UInt8, "bytes_received": UInt8, "updates_staged": UInt8,
            "updates_committed": UInt8, "records_indexed": UInt8, "bytes_indexed": UInt8, "rehydration_latency": Interval null,
            "snapshot_records_known": UInt8 null, "snapshot_records_staged": UInt8 null, "snapshot_committed": Bool, "offset_known": UInt8 null,
            "offset_committed": UInt8 null,
        }
        16_801 "mz_source_statuses" mz_rows::source_statuses {
            "id": Text, "name": Text, "type": Text, "last_status_change_at": TimestampTz null, "status": Text, "error": Text null,
            "details": Jsonb null,
        }
        16_802 "mz_hydration_statuses" mz_rows::hydration_statuses {
            "object_id": Text, "replica_id": Text null, "hydrated": Bool null, "error": Text null,
        }
        16_803 "mz_webhook_sources" mz_rows::empty { "id": Text, "name": Text, "url": Text }
        16_804 "mz_postgres_sources" mz_rows::connector_sources { "id": Text, "replication_slot": Text, "timeline_id": UInt8 null }
        16_805 "mz_postgres_source_tables" mz_rows::connector_tables { "id": Text, "schema_name": Text, "table_name": Text }
        16_806 "mz_object_dependencies" mz_rows::dependencies { "object_id": Text, "referenced_object_id": Text }
        16_807 "mz_object_transitive_dependencies" mz_rows::transitive_dependencies { "object_id": Text, "referenced_object_id": Text }
        16_808 "mz_object_fully_qualified_names" mz_rows::qualified_names {
            "id": Text, "name": Text, "object_type": Text, "schema_id": Text, "schema_name": Text, "database_id": Text null,
            "database_name": Text null, "cluster_id": Text null,
        }
        16_809 "mz_sessions" mz_rows::sessions {
            "id": Uuid, "connection_id": UInt4, "role_id": Text, "client_ip": Text null, "connected_at": TimestampTz,
        }
        16_810 "mz_subscriptions" mz_rows::subscriptions {
            "id": Text, "session_id": Uuid, "cluster_id": Text, "created_at": TimestampTz, "referenced_object_ids": TextArray,
        }
        16_811 "mz_frontiers" mz_rows::frontiers { "object_id": Text, "read_frontier": MzTimestamp null, "write_frontier": MzTimestamp null }
        16_812 "mz_comments" mz_rows::comments { "id": Text, "object_type": Text, "object_sub_id": Int4 null, "comment": Text }
        16_813 "mz_cluster_replica_statuses" cluster_rows::replica_statuses {
            "replica_id": Text, "process_id": UInt8, "status": Text, "reason": Text null, "updated_at": TimestampTz,
        }
        16_814 "mz_compute_hydration_statuses" mz_rows::compute_hydration_statuses {
            "object_id": Text, "replica_id": Text, "hydrated": Bool, "hydration_time": Interval null,
        }
        16_815 "mz_collection_statistics" mz_rows::collection_statistics {
            "object_id": Text, "records": UInt8, "bytes": UInt8, "errors": UInt8, "error": Text null,
        }
        16_816 "mz_wallclock_global_lag" mz_rows::lag { "object_id": Text, "lag": Interval null }
        16_817 "mz_sink_statuses" mz_rows::sink_statuses {
            "id": Text, "name": Text, "type": Text, "last_status_change_at": TimestampTz null, "status": Text, "error": Text null,
            "details": Jsonb null,
        }
        16_818 "mz_sink_statistics" mz_rows::sink_statistics {
            "id": Text, "replica_id": Text null, "messages_staged": UInt8, "messages_committed": UInt8, "bytes_staged": UInt8,
            "bytes_committed": UInt8,
        }
        16_819 "mz_cluster_schedules" cluster_rows::schedules { "cluster_id": Text, "type": Text, "refresh_hydration_time_estimate": Interval null }
        16_820 "mz_object_memory" mz_rows::object_memory { "object_id": Text, "holder": Text, "bytes": UInt8 }
        16_821 "mz_kafka_source_tables" mz_rows::connector_tables {
            "id": Text, "topic": Text, "envelope_type": Text null, "key_format": Text null, "value_format": Text null,
        }
        16_822 "mz_kafka_source_partitions" mz_rows::source_partitions {
            "id": Text, "partition": Int4, "offset_known": UInt8 null, "offset_committed": UInt8 null, "lag": UInt8 null,
        }
        16_823 "mz_process_memory" mz_rows::process_memory { "resident_bytes": UInt8 null, "allocated_bytes": UInt8, "object_bytes": UInt8 }
    }
}
