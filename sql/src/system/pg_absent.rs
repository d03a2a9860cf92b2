//! The relations of pg_catalog about what does not exist here, with the columns that they have in PostgreSQL 15: all of them are empty.

use super::pg_rows;
use super::{Kind, Relation, column, declare, nullable};

declare! { "pg_catalog":
    2602 "pg_amop" pg_rows::empty {
        "oid": Oid, "amopfamily": Oid, "amoplefttype": Oid, "amoprighttype": Oid, "amopstrategy": Int2,
        "amoppurpose": QuotedChar, "amopopr": Oid, "amopmethod": Oid, "amopsortfamily": Oid,
    }
    2603 "pg_amproc" pg_rows::empty {
        "oid": Oid, "amprocfamily": Oid, "amproclefttype": Oid, "amprocrighttype": Oid, "amprocnum": Int2,
        "amproc": RegProc,
    }
    12085 "pg_available_extension_versions" pg_rows::empty {
        "name": Name null, "version": Text null, "installed": Bool null, "superuser": Bool null,
        "trusted": Bool null, "relocatable": Bool null, "schema": Name null, "requires": TextArray null,
        "comment": Text null,
    }
    12081 "pg_available_extensions" pg_rows::empty {
        "name": Name null, "default_version": Text null, "installed_version": Text null, "comment": Text null,
    }
    12138 "pg_backend_memory_contexts" pg_rows::empty {
        "name": Text null, "ident": Text null, "parent": Text null, "level": Int4 null, "total_bytes": Int8 null,
        "total_nblocks": Int8 null, "free_bytes": Int8 null, "free_chunks": Int8 null, "used_bytes": Int8 null,
    }
    12130 "pg_config" pg_rows::empty {
        "name": Text null, "setting": Text null,
    }
    12110 "pg_file_settings" pg_rows::empty {
        "sourcefile": Text null, "sourceline": Int4 null, "seqno": Int4 null, "name": Text null,
        "setting": Text null, "applied": Bool null, "error": Text null,
    }
    3394 "pg_init_privs" pg_rows::empty {
        "objoid": Oid, "classoid": Oid, "objsubid": Int4, "privtype": QuotedChar, "initprivs": TextArray,
    }
    2613 "pg_largeobject" pg_rows::empty {
        "loid": Oid, "pageno": Int4, "data": Bytea,
    }
    2995 "pg_largeobject_metadata" pg_rows::empty {
        "oid": Oid, "lomowner": Oid, "lomacl": TextArray null,
    }
    6243 "pg_parameter_acl" pg_rows::empty {
        "oid": Oid, "parname": Text, "paracl": TextArray null,
    }
    12018 "pg_policies" pg_rows::empty {
        "schemaname": Name null, "tablename": Name null, "policyname": Name null, "permissive": Text null,
        "roles": TextArray null, "cmd": Text null, "qual": Text null, "with_check": Text null,
    }
    12090 "pg_prepared_xacts" pg_rows::empty {
        "transaction": Oid null, "gid": Text null, "prepared": TimestampTz null, "owner": Name null,
        "database": Name null,
    }
    12068 "pg_publication_tables" pg_rows::empty {
        "pubname": Name null, "schemaname": Name null, "tablename": Name null, "attnames": TextArray null,
        "rowfilter": Text null,
    }
    6000 "pg_replication_origin" pg_rows::empty {
        "roident": Oid, "roname": Text,
    }
    12332 "pg_replication_origin_status" pg_rows::empty {
        "local_id": Oid null, "external_id": Text null, "remote_lsn": Text null, "local_lsn": Text null,
    }
    12257 "pg_replication_slots" pg_rows::empty {
        "slot_name": Name null, "plugin": Name null, "slot_type": Text null, "datoid": Oid null,
        "database": Name null, "temporary": Bool null, "active": Bool null, "active_pid": Int4 null,
        "xmin": Oid null, "catalog_xmin": Oid null, "restart_lsn": Text null, "confirmed_flush_lsn": Text null,
        "wal_status": Text null, "safe_wal_size": Int8 null, "two_phase": Bool null,
    }
    12099 "pg_seclabels" pg_rows::empty {
        "objoid": Oid null, "classoid": Oid null, "objsubid": Int4 null, "objtype": Text null,
        "objnamespace": Oid null, "objname": Text null, "provider": Text null, "label": Text null,
    }
    1214 "pg_shdepend" pg_rows::empty {
        "dbid": Oid, "classid": Oid, "objid": Oid, "objsubid": Int4, "refclassid": Oid, "refobjid": Oid,
        "deptype": QuotedChar,
    }
    12134 "pg_shmem_allocations" pg_rows::empty {
        "name": Text null, "off": Int8 null, "size": Int8 null, "allocated_size": Int8 null,
    }
    3592 "pg_shseclabel" pg_rows::empty {
        "objoid": Oid, "classoid": Oid, "provider": Text, "label": Text,
    }
    12285 "pg_stat_archiver" pg_rows::empty {
        "archived_count": Int8 null, "last_archived_wal": Text null, "last_archived_time": TimestampTz null,
        "failed_count": Int8 null, "last_failed_wal": Text null, "last_failed_time": TimestampTz null,
        "stats_reset": TimestampTz null,
    }
    12289 "pg_stat_bgwriter" pg_rows::empty {
        "checkpoints_timed": Int8 null, "checkpoints_req": Int8 null, "checkpoint_write_time": Float8 null,
        "checkpoint_sync_time": Float8 null, "buffers_checkpoint": Int8 null, "buffers_clean": Int8 null,
        "maxwritten_clean": Int8 null, "buffers_backend": Int8 null, "buffers_backend_fsync": Int8 null,
        "buffers_alloc": Int8 null, "stats_reset": TimestampTz null,
    }
    12271 "pg_stat_database_conflicts" pg_rows::empty {
        "datid": Oid null, "datname": Name null, "confl_tablespace": Int8 null, "confl_lock": Int8 null,
        "confl_snapshot": Int8 null, "confl_bufferpin": Int8 null, "confl_deadlock": Int8 null,
    }
    12253 "pg_stat_gssapi" pg_rows::empty {
        "pid": Int4 null, "gss_authenticated": Bool null, "principal": Text null, "encrypted": Bool null,
    }
    12297 "pg_stat_progress_analyze" pg_rows::empty {
        "pid": Int4 null, "datid": Oid null, "datname": Name null, "relid": Oid null, "phase": Text null,
        "sample_blks_total": Int8 null, "sample_blks_scanned": Int8 null, "ext_stats_total": Int8 null,
        "ext_stats_computed": Int8 null, "child_tables_total": Int8 null, "child_tables_done": Int8 null,
        "current_child_table_relid": Oid null,
    }
    12317 "pg_stat_progress_basebackup" pg_rows::empty {
        "pid": Int4 null, "phase": Text null, "backup_total": Int8 null, "backup_streamed": Int8 null,
        "tablespaces_total": Int8 null, "tablespaces_streamed": Int8 null,
    }
    12307 "pg_stat_progress_cluster" pg_rows::empty {
        "pid": Int4 null, "datid": Oid null, "datname": Name null, "relid": Oid null, "command": Text null,
        "phase": Text null, "cluster_index_relid": Oid null, "heap_tuples_scanned": Int8 null,
        "heap_tuples_written": Int8 null, "heap_blks_total": Int8 null, "heap_blks_scanned": Int8 null,
        "index_rebuild_count": Int8 null,
    }
    12322 "pg_stat_progress_copy" pg_rows::empty {
        "pid": Int4 null, "datid": Oid null, "datname": Name null, "relid": Oid null, "command": Text null,
        "type": Text null, "bytes_processed": Int8 null, "bytes_total": Int8 null, "tuples_processed": Int8 null,
        "tuples_excluded": Int8 null,
    }
    12312 "pg_stat_progress_create_index" pg_rows::empty {
        "pid": Int4 null, "datid": Oid null, "datname": Name null, "relid": Oid null, "index_relid": Oid null,
        "command": Text null, "phase": Text null, "lockers_total": Int8 null, "lockers_done": Int8 null,
        "current_locker_pid": Int8 null, "blocks_total": Int8 null, "blocks_done": Int8 null,
        "tuples_total": Int8 null, "tuples_done": Int8 null, "partitions_total": Int8 null,
        "partitions_done": Int8 null,
    }
    12302 "pg_stat_progress_vacuum" pg_rows::empty {
        "pid": Int4 null, "datid": Oid null, "datname": Name null, "relid": Oid null, "phase": Text null,
        "heap_blks_total": Int8 null, "heap_blks_scanned": Int8 null, "heap_blks_vacuumed": Int8 null,
        "index_vacuum_count": Int8 null, "max_dead_tuples": Int8 null, "num_dead_tuples": Int8 null,
    }
    12240 "pg_stat_recovery_prefetch" pg_rows::empty {
        "stats_reset": TimestampTz null, "prefetch": Int8 null, "hit": Int8 null, "skip_init": Int8 null,
        "skip_new": Int8 null, "skip_fpw": Int8 null, "skip_rep": Int8 null, "wal_distance": Int4 null,
        "block_distance": Int4 null, "io_depth": Int4 null,
    }
    12227 "pg_stat_replication" pg_rows::empty {
        "pid": Int4 null, "usesysid": Oid null, "usename": Name null, "application_name": Text null,
        "client_addr": Text null, "client_hostname": Text null, "client_port": Int4 null,
        "backend_start": TimestampTz null, "backend_xmin": Oid null, "state": Text null, "sent_lsn": Text null,
        "write_lsn": Text null, "flush_lsn": Text null, "replay_lsn": Text null, "write_lag": Interval null,
        "flush_lag": Interval null, "replay_lag": Interval null, "sync_priority": Int4 null, "sync_state": Text null,
        "reply_time": TimestampTz null,
    }
    12262 "pg_stat_replication_slots" pg_rows::empty {
        "slot_name": Text null, "spill_txns": Int8 null, "spill_count": Int8 null, "spill_bytes": Int8 null,
        "stream_txns": Int8 null, "stream_count": Int8 null, "stream_bytes": Int8 null, "total_txns": Int8 null,
        "total_bytes": Int8 null, "stats_reset": TimestampTz null,
    }
    12232 "pg_stat_slru" pg_rows::empty {
        "name": Text null, "blks_zeroed": Int8 null, "blks_hit": Int8 null, "blks_read": Int8 null,
        "blks_written": Int8 null, "blks_exists": Int8 null, "flushes": Int8 null, "truncates": Int8 null,
        "stats_reset": TimestampTz null,
    }
    12249 "pg_stat_ssl" pg_rows::empty {
        "pid": Int4 null, "ssl": Bool null, "version": Text null, "cipher": Text null, "bits": Int4 null,
        "client_dn": Text null, "client_serial": Numeric null, "issuer_dn": Text null,
    }
    12244 "pg_stat_subscription" pg_rows::empty {
        "subid": Oid null, "subname": Name null, "pid": Int4 null, "relid": Oid null, "received_lsn": Text null,
        "last_msg_send_time": TimestampTz null, "last_msg_receipt_time": TimestampTz null,
        "latest_end_lsn": Text null, "latest_end_time": TimestampTz null,
    }
    12336 "pg_stat_subscription_stats" pg_rows::empty {
        "subid": Oid null, "subname": Name null, "apply_error_count": Int8 null, "sync_error_count": Int8 null,
        "stats_reset": TimestampTz null,
    }
    12188 "pg_stat_sys_indexes" pg_rows::empty {
        "relid": Oid null, "indexrelid": Oid null, "schemaname": Name null, "relname": Name null,
        "indexrelname": Name null, "idx_scan": Int8 null, "idx_tup_read": Int8 null, "idx_tup_fetch": Int8 null,
    }
    12152 "pg_stat_sys_tables" pg_rows::empty {
        "relid": Oid null, "schemaname": Name null, "relname": Name null, "seq_scan": Int8 null,
        "seq_tup_read": Int8 null, "idx_scan": Int8 null, "idx_tup_fetch": Int8 null, "n_tup_ins": Int8 null,
        "n_tup_upd": Int8 null, "n_tup_del": Int8 null, "n_tup_hot_upd": Int8 null, "n_live_tup": Int8 null,
        "n_dead_tup": Int8 null, "n_mod_since_analyze": Int8 null, "n_ins_since_vacuum": Int8 null,
        "last_vacuum": TimestampTz null, "last_autovacuum": TimestampTz null, "last_analyze": TimestampTz null,
        "last_autoanalyze": TimestampTz null, "vacuum_count": Int8 null, "autovacuum_count": Int8 null,
        "analyze_count": Int8 null, "autoanalyze_count": Int8 null,
    }
    12275 "pg_stat_user_functions" pg_rows::empty {
        "funcid": Oid null, "schemaname": Name null, "funcname": Name null, "calls": Int8 null,
        "total_time": Float8 null, "self_time": Float8 null,
    }
    12293 "pg_stat_wal" pg_rows::empty {
        "wal_records": Int8 null, "wal_fpi": Int8 null, "wal_bytes": Numeric null, "wal_buffers_full": Int8 null,
        "wal_write": Int8 null, "wal_sync": Int8 null, "wal_write_time": Float8 null, "wal_sync_time": Float8 null,
        "stats_reset": TimestampTz null,
    }
    12236 "pg_stat_wal_receiver" pg_rows::empty {
        "pid": Int4 null, "status": Text null, "receive_start_lsn": Text null, "receive_start_tli": Int4 null,
        "written_lsn": Text null, "flushed_lsn": Text null, "received_tli": Int4 null,
        "last_msg_send_time": TimestampTz null, "last_msg_receipt_time": TimestampTz null,
        "latest_end_lsn": Text null, "latest_end_time": TimestampTz null, "slot_name": Text null,
        "sender_host": Text null, "sender_port": Int4 null, "conninfo": Text null,
    }
    12147 "pg_stat_xact_all_tables" pg_rows::empty {
        "relid": Oid null, "schemaname": Name null, "relname": Name null, "seq_scan": Int8 null,
        "seq_tup_read": Int8 null, "idx_scan": Int8 null, "idx_tup_fetch": Int8 null, "n_tup_ins": Int8 null,
        "n_tup_upd": Int8 null, "n_tup_del": Int8 null, "n_tup_hot_upd": Int8 null,
    }
    12157 "pg_stat_xact_sys_tables" pg_rows::empty {
        "relid": Oid null, "schemaname": Name null, "relname": Name null, "seq_scan": Int8 null,
        "seq_tup_read": Int8 null, "idx_scan": Int8 null, "idx_tup_fetch": Int8 null, "n_tup_ins": Int8 null,
        "n_tup_upd": Int8 null, "n_tup_del": Int8 null, "n_tup_hot_upd": Int8 null,
    }
    12280 "pg_stat_xact_user_functions" pg_rows::empty {
        "funcid": Oid null, "schemaname": Name null, "funcname": Name null, "calls": Int8 null,
        "total_time": Float8 null, "self_time": Float8 null,
    }
    12166 "pg_stat_xact_user_tables" pg_rows::empty {
        "relid": Oid null, "schemaname": Name null, "relname": Name null, "seq_scan": Int8 null,
        "seq_tup_read": Int8 null, "idx_scan": Int8 null, "idx_tup_fetch": Int8 null, "n_tup_ins": Int8 null,
        "n_tup_upd": Int8 null, "n_tup_del": Int8 null, "n_tup_hot_upd": Int8 null,
    }
    12196 "pg_statio_all_indexes" pg_rows::empty {
        "relid": Oid null, "indexrelid": Oid null, "schemaname": Name null, "relname": Name null,
        "indexrelname": Name null, "idx_blks_read": Int8 null, "idx_blks_hit": Int8 null,
    }
    12209 "pg_statio_all_sequences" pg_rows::empty {
        "relid": Oid null, "schemaname": Name null, "relname": Name null, "blks_read": Int8 null,
        "blks_hit": Int8 null,
    }
    12170 "pg_statio_all_tables" pg_rows::empty {
        "relid": Oid null, "schemaname": Name null, "relname": Name null, "heap_blks_read": Int8 null,
        "heap_blks_hit": Int8 null, "idx_blks_read": Int8 null, "idx_blks_hit": Int8 null,
        "toast_blks_read": Int8 null, "toast_blks_hit": Int8 null, "tidx_blks_read": Int8 null,
        "tidx_blks_hit": Int8 null,
    }
    12201 "pg_statio_sys_indexes" pg_rows::empty {
        "relid": Oid null, "indexrelid": Oid null, "schemaname": Name null, "relname": Name null,
        "indexrelname": Name null, "idx_blks_read": Int8 null, "idx_blks_hit": Int8 null,
    }
    12214 "pg_statio_sys_sequences" pg_rows::empty {
        "relid": Oid null, "schemaname": Name null, "relname": Name null, "blks_read": Int8 null,
        "blks_hit": Int8 null,
    }
    12175 "pg_statio_sys_tables" pg_rows::empty {
        "relid": Oid null, "schemaname": Name null, "relname": Name null, "heap_blks_read": Int8 null,
        "heap_blks_hit": Int8 null, "idx_blks_read": Int8 null, "idx_blks_hit": Int8 null,
        "toast_blks_read": Int8 null, "toast_blks_hit": Int8 null, "tidx_blks_read": Int8 null,
        "tidx_blks_hit": Int8 null,
    }
    12205 "pg_statio_user_indexes" pg_rows::empty {
        "relid": Oid null, "indexrelid": Oid null, "schemaname": Name null, "relname": Name null,
        "indexrelname": Name null, "idx_blks_read": Int8 null, "idx_blks_hit": Int8 null,
    }
    12218 "pg_statio_user_sequences" pg_rows::empty {
        "relid": Oid null, "schemaname": Name null, "relname": Name null, "blks_read": Int8 null,
        "blks_hit": Int8 null,
    }
    12179 "pg_statio_user_tables" pg_rows::empty {
        "relid": Oid null, "schemaname": Name null, "relname": Name null, "heap_blks_read": Int8 null,
        "heap_blks_hit": Int8 null, "idx_blks_read": Int8 null, "idx_blks_hit": Int8 null,
        "toast_blks_read": Int8 null, "toast_blks_hit": Int8 null, "tidx_blks_read": Int8 null,
        "tidx_blks_hit": Int8 null,
    }
    12053 "pg_stats" pg_rows::empty {
        "schemaname": Name null, "tablename": Name null, "attname": Name null, "inherited": Bool null,
        "null_frac": Float4 null, "avg_width": Int4 null, "n_distinct": Float4 null, "most_common_vals": Text null,
        "most_common_freqs": Float4Array null, "histogram_bounds": Text null, "correlation": Float4 null,
        "most_common_elems": Text null, "most_common_elem_freqs": Float4Array null,
        "elem_count_histogram": Float4Array null,
    }
    12058 "pg_stats_ext" pg_rows::empty {
        "schemaname": Name null, "tablename": Name null, "statistics_schemaname": Name null,
        "statistics_name": Name null, "statistics_owner": Name null, "attnames": TextArray null,
        "exprs": TextArray null, "kinds": TextArray null, "inherited": Bool null, "n_distinct": Text null,
        "dependencies": Text null, "most_common_vals": TextArray null, "most_common_val_nulls": Text null,
        "most_common_freqs": Text null, "most_common_base_freqs": Text null,
    }
    12063 "pg_stats_ext_exprs" pg_rows::empty {
        "schemaname": Name null, "tablename": Name null, "statistics_schemaname": Name null,
        "statistics_name": Name null, "statistics_owner": Name null, "expr": Text null, "inherited": Bool null,
        "null_frac": Float4 null, "avg_width": Int4 null, "n_distinct": Float4 null, "most_common_vals": Text null,
        "most_common_freqs": Float4Array null, "histogram_bounds": Text null, "correlation": Float4 null,
        "most_common_elems": Text null, "most_common_elem_freqs": Float4Array null,
        "elem_count_histogram": Float4Array null,
    }
    6102 "pg_subscription_rel" pg_rows::empty {
        "srsubid": Oid, "srrelid": Oid, "srsubstate": QuotedChar, "srsublsn": Text null,
    }
    3603 "pg_ts_config_map" pg_rows::empty {
        "mapcfg": Oid, "maptokentype": Int4, "mapseqno": Int4, "mapdict": Oid,
    }
    3600 "pg_ts_dict" pg_rows::empty {
        "oid": Oid, "dictname": Name, "dictnamespace": Oid, "dictowner": Oid, "dicttemplate": Oid,
        "dictinitoption": Text null,
    }
    3601 "pg_ts_parser" pg_rows::empty {
        "oid": Oid, "prsname": Name, "prsnamespace": Oid, "prsstart": RegProc, "prstoken": RegProc,
        "prsend": RegProc, "prsheadline": RegProc, "prslextype": RegProc,
    }
    3764 "pg_ts_template" pg_rows::empty {
        "oid": Oid, "tmplname": Name, "tmplnamespace": Oid, "tmplinit": RegProc, "tmpllexize": RegProc,
    }
    1418 "pg_user_mapping" pg_rows::empty {
        "oid": Oid, "umuser": Oid, "umserver": Oid, "umoptions": TextArray null,
    }
    12327 "pg_user_mappings" pg_rows::empty {
        "umid": Oid null, "srvid": Oid null, "srvname": Name null, "umuser": Oid null, "usename": Name null,
        "umoptions": TextArray null,
    }
}
