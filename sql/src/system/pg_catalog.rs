//! The relations of `pg_catalog`, with the columns and OIDs they have in PostgreSQL 15. Those that we have nothing for are empty.

use super::{Kind, Relation, column, declare, nullable};
use super::{pg_operators, pg_rows, zone_rows};

declare! { "pg_catalog":
    2600 "pg_aggregate" pg_rows::aggregates {
        "aggfnoid": RegProc, "aggkind": QuotedChar, "aggnumdirectargs": Int2, "aggtransfn": RegProc,
        "aggfinalfn": RegProc, "aggcombinefn": RegProc, "aggserialfn": RegProc, "aggdeserialfn": RegProc,
        "aggmtransfn": RegProc, "aggminvtransfn": RegProc, "aggmfinalfn": RegProc, "aggfinalextra": Bool,
        "aggmfinalextra": Bool, "aggfinalmodify": QuotedChar, "aggmfinalmodify": QuotedChar, "aggsortop": Oid,
        "aggtranstype": Oid, "aggtransspace": Int4, "aggmtranstype": Oid, "aggmtransspace": Int4,
        "agginitval": Text null, "aggminitval": Text null,
    }
    2601 "pg_am" pg_rows::access_methods {
        "oid": Oid, "amname": Name, "amhandler": RegProc, "amtype": QuotedChar,
    }
    2604 "pg_attrdef" pg_rows::defaults {
        "oid": Oid, "adrelid": Oid, "adnum": Int2, "adbin": Text,
    }
    1249 "pg_attribute" pg_rows::attributes {
        "attrelid": Oid, "attname": Name, "atttypid": Oid, "attstattarget": Int4, "attlen": Int2, "attnum": Int2,
        "attndims": Int4, "attcacheoff": Int4, "atttypmod": Int4, "attbyval": Bool, "attalign": QuotedChar,
        "attstorage": QuotedChar, "attcompression": QuotedChar, "attnotnull": Bool, "atthasdef": Bool,
        "atthasmissing": Bool, "attidentity": QuotedChar, "attgenerated": QuotedChar, "attisdropped": Bool,
        "attislocal": Bool, "attinhcount": Int4, "attcollation": Oid, "attacl": TextArray null,
        "attoptions": TextArray null, "attfdwoptions": TextArray null, "attmissingval": Text null,
    }
    1260 "pg_authid" pg_rows::authid {
        "oid": Oid, "rolname": Name, "rolsuper": Bool, "rolinherit": Bool, "rolcreaterole": Bool, "rolcreatedb": Bool,
        "rolcanlogin": Bool, "rolreplication": Bool, "rolbypassrls": Bool, "rolconnlimit": Int4,
        "rolpassword": Text null, "rolvaliduntil": TimestampTz null,
    }
    1261 "pg_auth_members" pg_rows::empty {
        "roleid": Oid, "member": Oid, "grantor": Oid, "admin_option": Bool,
    }
    2605 "pg_cast" pg_operators::cast_rows {
        "oid": Oid, "castsource": Oid, "casttarget": Oid, "castfunc": Oid, "castcontext": QuotedChar,
        "castmethod": QuotedChar,
    }
    1259 "pg_class" pg_rows::classes {
        "oid": Oid, "relname": Name, "relnamespace": Oid, "reltype": Oid, "reloftype": Oid, "relowner": Oid,
        "relam": Oid, "relfilenode": Oid, "reltablespace": Oid, "relpages": Int4, "reltuples": Float4,
        "relallvisible": Int4, "reltoastrelid": Oid, "relhasindex": Bool, "relisshared": Bool,
        "relpersistence": QuotedChar, "relkind": QuotedChar, "relnatts": Int2, "relchecks": Int2,
        "relhasrules": Bool, "relhastriggers": Bool, "relhassubclass": Bool, "relrowsecurity": Bool,
        "relforcerowsecurity": Bool, "relispopulated": Bool, "relreplident": QuotedChar, "relispartition": Bool,
        "relrewrite": Oid, "relfrozenxid": Oid, "relminmxid": Oid, "relacl": TextArray null,
        "reloptions": TextArray null, "relpartbound": Text null,
    }
    3456 "pg_collation" pg_rows::collations {
        "oid": Oid, "collname": Name, "collnamespace": Oid, "collowner": Oid, "collprovider": QuotedChar,
        "collisdeterministic": Bool, "collencoding": Int4, "collcollate": Text null, "collctype": Text null,
        "colliculocale": Text null, "collversion": Text null,
    }
    2606 "pg_constraint" pg_rows::constraints {
        "oid": Oid, "conname": Name, "connamespace": Oid, "contype": QuotedChar, "condeferrable": Bool,
        "condeferred": Bool, "convalidated": Bool, "conrelid": Oid, "contypid": Oid, "conindid": Oid,
        "conparentid": Oid, "confrelid": Oid, "confupdtype": QuotedChar, "confdeltype": QuotedChar,
        "confmatchtype": QuotedChar, "conislocal": Bool, "coninhcount": Int4, "connoinherit": Bool,
        "conkey": Int2Array null, "confkey": Int2Array null, "conpfeqop": OidArray null, "conppeqop": OidArray null,
        "conffeqop": OidArray null, "confdelsetcols": Int2Array null, "conexclop": OidArray null,
        "conbin": Text null,
    }
    2607 "pg_conversion" pg_rows::empty {
        "oid": Oid, "conname": Name, "connamespace": Oid, "conowner": Oid, "conforencoding": Int4,
        "contoencoding": Int4, "conproc": RegProc, "condefault": Bool,
    }
    12077 "pg_cursors" pg_rows::empty {
        "name": Text null, "statement": Text null, "is_holdable": Bool null, "is_binary": Bool null,
        "is_scrollable": Bool null, "creation_time": TimestampTz null,
    }
    1262 "pg_database" pg_rows::databases {
        "oid": Oid, "datname": Name, "datdba": Oid, "encoding": Int4, "datlocprovider": QuotedChar,
        "datistemplate": Bool, "datallowconn": Bool, "datconnlimit": Int4, "datfrozenxid": Oid, "datminmxid": Oid,
        "dattablespace": Oid, "datcollate": Text, "datctype": Text, "daticulocale": Text null,
        "datcollversion": Text null, "datacl": TextArray null,
    }
    2964 "pg_db_role_setting" pg_rows::empty {
        "setdatabase": Oid, "setrole": Oid, "setconfig": TextArray null,
    }
    826 "pg_default_acl" pg_rows::empty {
        "oid": Oid, "defaclrole": Oid, "defaclnamespace": Oid, "defaclobjtype": QuotedChar, "defaclacl": TextArray,
    }
    2608 "pg_depend" pg_rows::dependencies {
        "classid": Oid, "objid": Oid, "objsubid": Int4, "refclassid": Oid, "refobjid": Oid, "refobjsubid": Int4,
        "deptype": QuotedChar,
    }
    2609 "pg_description" pg_rows::descriptions {
        "objoid": Oid, "classoid": Oid, "objsubid": Int4, "description": Text,
    }
    3501 "pg_enum" pg_rows::empty {
        "oid": Oid, "enumtypid": Oid, "enumsortorder": Float4, "enumlabel": Name,
    }
    3466 "pg_event_trigger" pg_rows::empty {
        "oid": Oid, "evtname": Name, "evtevent": Name, "evtowner": Oid, "evtfoid": Oid, "evtenabled": QuotedChar,
        "evttags": TextArray null,
    }
    3079 "pg_extension" pg_rows::empty {
        "oid": Oid, "extname": Name, "extowner": Oid, "extnamespace": Oid, "extrelocatable": Bool,
        "extversion": Text, "extconfig": OidArray null, "extcondition": TextArray null,
    }
    2328 "pg_foreign_data_wrapper" pg_rows::empty {
        "oid": Oid, "fdwname": Name, "fdwowner": Oid, "fdwhandler": Oid, "fdwvalidator": Oid,
        "fdwacl": TextArray null, "fdwoptions": TextArray null,
    }
    1417 "pg_foreign_server" pg_rows::empty {
        "oid": Oid, "srvname": Name, "srvowner": Oid, "srvfdw": Oid, "srvtype": Text null, "srvversion": Text null,
        "srvacl": TextArray null, "srvoptions": TextArray null,
    }
    3118 "pg_foreign_table" pg_rows::empty {
        "ftrelid": Oid, "ftserver": Oid, "ftoptions": TextArray null,
    }
    12010 "pg_group" pg_rows::empty {
        "groname": Name null, "grosysid": Oid null, "grolist": OidArray null,
    }
    2610 "pg_index" pg_rows::indexes {
        "indexrelid": Oid, "indrelid": Oid, "indnatts": Int2, "indnkeyatts": Int2, "indisunique": Bool,
        "indnullsnotdistinct": Bool, "indisprimary": Bool, "indisexclusion": Bool, "indimmediate": Bool,
        "indisclustered": Bool, "indisvalid": Bool, "indcheckxmin": Bool, "indisready": Bool, "indislive": Bool,
        "indisreplident": Bool, "indkey": Int2Vector, "indcollation": OidVector, "indclass": OidVector,
        "indoption": Int2Vector, "indexprs": Text null, "indpred": Text null,
    }
    12043 "pg_indexes" pg_rows::index_texts {
        "schemaname": Name null, "tablename": Name null, "indexname": Name null, "tablespace": Name null,
        "indexdef": Text null,
    }
    2611 "pg_inherits" pg_rows::empty {
        "inhrelid": Oid, "inhparent": Oid, "inhseqno": Int4, "inhdetachpending": Bool,
    }
    2612 "pg_language" pg_rows::languages {
        "oid": Oid, "lanname": Name, "lanowner": Oid, "lanispl": Bool, "lanpltrusted": Bool, "lanplcallfoid": Oid,
        "laninline": Oid, "lanvalidator": Oid, "lanacl": TextArray null,
    }
    12073 "pg_locks" pg_rows::empty {
        "locktype": Text null, "database": Oid null, "relation": Oid null, "page": Int4 null, "tuple": Int2 null,
        "virtualxid": Text null, "transactionid": Oid null, "classid": Oid null, "objid": Oid null,
        "objsubid": Int2 null, "virtualtransaction": Text null, "pid": Int4 null, "mode": Text null,
        "granted": Bool null, "fastpath": Bool null, "waitstart": TimestampTz null,
    }
    12038 "pg_matviews" pg_rows::materialized_views {
        "schemaname": Name null, "matviewname": Name null, "matviewowner": Name null, "tablespace": Name null,
        "hasindexes": Bool null, "ispopulated": Bool null, "definition": Text null,
    }
    2615 "pg_namespace" pg_rows::namespaces {
        "oid": Oid, "nspname": Name, "nspowner": Oid, "nspacl": TextArray null,
    }
    2616 "pg_opclass" pg_rows::empty {
        "oid": Oid, "opcmethod": Oid, "opcname": Name, "opcnamespace": Oid, "opcowner": Oid, "opcfamily": Oid,
        "opcintype": Oid, "opcdefault": Bool, "opckeytype": Oid,
    }
    2617 "pg_operator" pg_operators::operator_rows {
        "oid": Oid, "oprname": Name, "oprnamespace": Oid, "oprowner": Oid, "oprkind": QuotedChar,
        "oprcanmerge": Bool, "oprcanhash": Bool, "oprleft": Oid, "oprright": Oid, "oprresult": Oid, "oprcom": Oid,
        "oprnegate": Oid, "oprcode": RegProc, "oprrest": RegProc, "oprjoin": RegProc,
    }
    2753 "pg_opfamily" pg_rows::empty {
        "oid": Oid, "opfmethod": Oid, "opfname": Name, "opfnamespace": Oid, "opfowner": Oid,
    }
    3350 "pg_partitioned_table" pg_rows::empty {
        "partrelid": Oid, "partstrat": QuotedChar, "partnatts": Int2, "partdefid": Oid, "partattrs": Int2Vector,
        "partclass": OidVector, "partcollation": OidVector, "partexprs": Text null,
    }
    3256 "pg_policy" pg_rows::empty {
        "oid": Oid, "polname": Name, "polrelid": Oid, "polcmd": QuotedChar, "polpermissive": Bool,
        "polroles": OidArray, "polqual": Text null, "polwithcheck": Text null,
    }
    12095 "pg_prepared_statements" pg_rows::empty {
        "name": Text null, "statement": Text null, "prepare_time": TimestampTz null,
        "parameter_types": OidArray null, "from_sql": Bool null, "generic_plans": Int8 null,
        "custom_plans": Int8 null,
    }
    1255 "pg_proc" pg_rows::functions {
        "oid": Oid, "proname": Name, "pronamespace": Oid, "proowner": Oid, "prolang": Oid, "procost": Float4,
        "prorows": Float4, "provariadic": Oid, "prosupport": RegProc, "prokind": QuotedChar, "prosecdef": Bool,
        "proleakproof": Bool, "proisstrict": Bool, "proretset": Bool, "provolatile": QuotedChar,
        "proparallel": QuotedChar, "pronargs": Int2, "pronargdefaults": Int2, "prorettype": Oid,
        "proargtypes": OidVector, "proallargtypes": OidArray null, "proargmodes": TextArray null,
        "proargnames": TextArray null, "proargdefaults": Text null, "protrftypes": OidArray null, "prosrc": Text,
        "probin": Text null, "prosqlbody": Text null, "proconfig": TextArray null, "proacl": TextArray null,
    }
    6104 "pg_publication" pg_rows::empty {
        "oid": Oid, "pubname": Name, "pubowner": Oid, "puballtables": Bool, "pubinsert": Bool, "pubupdate": Bool,
        "pubdelete": Bool, "pubtruncate": Bool, "pubviaroot": Bool,
    }
    6237 "pg_publication_namespace" pg_rows::empty {
        "oid": Oid, "pnpubid": Oid, "pnnspid": Oid,
    }
    6106 "pg_publication_rel" pg_rows::empty {
        "oid": Oid, "prpubid": Oid, "prrelid": Oid, "prqual": Text null, "prattrs": Int2Array null,
    }
    3541 "pg_range" pg_rows::empty {
        "rngtypid": Oid, "rngsubtype": Oid, "rngmultitypid": Oid, "rngcollation": Oid, "rngsubopc": Oid,
        "rngcanonical": RegProc, "rngsubdiff": RegProc,
    }
    2618 "pg_rewrite" pg_rows::rules {
        "oid": Oid, "rulename": Name, "ev_class": Oid, "ev_type": QuotedChar, "ev_enabled": QuotedChar,
        "is_instead": Bool, "ev_qual": Text, "ev_action": Text,
    }
    12000 "pg_roles" pg_rows::roles {
        "rolname": Name, "rolsuper": Bool null, "rolinherit": Bool null, "rolcreaterole": Bool null,
        "rolcreatedb": Bool null, "rolcanlogin": Bool null, "rolreplication": Bool null, "rolconnlimit": Int4 null,
        "rolpassword": Text null, "rolvaliduntil": TimestampTz null, "rolbypassrls": Bool null,
        "rolconfig": TextArray null, "oid": Oid,
    }
    3596 "pg_seclabel" pg_rows::empty {
        "objoid": Oid, "classoid": Oid, "objsubid": Int4, "provider": Text, "label": Text,
    }
    2224 "pg_sequence" pg_rows::empty {
        "seqrelid": Oid, "seqtypid": Oid, "seqstart": Int8, "seqincrement": Int8, "seqmax": Int8, "seqmin": Int8,
        "seqcache": Int8, "seqcycle": Bool,
    }
    12048 "pg_sequences" pg_rows::empty {
        "schemaname": Name null, "sequencename": Name null, "sequenceowner": Name null, "data_type": RegType null,
        "start_value": Int8 null, "min_value": Int8 null, "max_value": Int8 null, "increment_by": Int8 null,
        "cycle": Bool null, "cache_size": Int8 null, "last_value": Int8 null,
    }
    12104 "pg_settings" pg_rows::settings {
        "name": Text, "setting": Text null, "unit": Text null, "category": Text null, "short_desc": Text null,
        "extra_desc": Text null, "context": Text null, "vartype": Text null, "source": Text null,
        "min_val": Text null, "max_val": Text null, "enumvals": TextArray null, "boot_val": Text null,
        "reset_val": Text null, "sourcefile": Text null, "sourceline": Int4 null, "pending_restart": Bool null,
    }
    2396 "pg_shdescription" pg_rows::empty {
        "objoid": Oid, "classoid": Oid, "description": Text,
    }
    12222 "pg_stat_activity" pg_rows::activity {
        "datid": Oid null, "datname": Name null, "pid": Int4 null, "leader_pid": Int4 null, "usesysid": Oid null,
        "usename": Name null, "application_name": Text null, "client_addr": Text null, "client_hostname": Text null,
        "client_port": Int4 null, "backend_start": TimestampTz null, "xact_start": TimestampTz null,
        "query_start": TimestampTz null, "state_change": TimestampTz null, "wait_event_type": Text null,
        "wait_event": Text null, "state": Text null, "backend_xid": Oid null, "backend_xmin": Oid null,
        "query_id": Int8 null, "query": Text null, "backend_type": Text null,
    }
    12161 "pg_stat_user_tables" pg_rows::table_statistics {
        "relid": Oid null, "schemaname": Name null, "relname": Name null, "seq_scan": Int8 null,
        "seq_tup_read": Int8 null, "idx_scan": Int8 null, "idx_tup_fetch": Int8 null, "n_tup_ins": Int8 null,
        "n_tup_upd": Int8 null, "n_tup_del": Int8 null, "n_tup_hot_upd": Int8 null, "n_live_tup": Int8 null,
        "n_dead_tup": Int8 null, "n_mod_since_analyze": Int8 null, "n_ins_since_vacuum": Int8 null,
        "last_vacuum": TimestampTz null, "last_autovacuum": TimestampTz null, "last_analyze": TimestampTz null,
        "last_autoanalyze": TimestampTz null, "vacuum_count": Int8 null, "autovacuum_count": Int8 null,
        "analyze_count": Int8 null, "autoanalyze_count": Int8 null,
    }
    3381 "pg_statistic_ext" pg_rows::empty {
        "oid": Oid, "stxrelid": Oid, "stxname": Name, "stxnamespace": Oid, "stxowner": Oid, "stxstattarget": Int4,
        "stxkeys": Int2Vector, "stxkind": TextArray, "stxexprs": Text null,
    }
    3429 "pg_statistic_ext_data" pg_rows::empty {
        "stxoid": Oid, "stxdinherit": Bool, "stxdndistinct": Text null, "stxddependencies": Text null,
        "stxdmcv": Text null, "stxdexpr": TextArray null,
    }
    6100 "pg_subscription" pg_rows::empty {
        "oid": Oid, "subdbid": Oid, "subskiplsn": Text, "subname": Name, "subowner": Oid, "subenabled": Bool,
        "subbinary": Bool, "substream": Bool, "subtwophasestate": QuotedChar, "subdisableonerr": Bool,
        "subconninfo": Text, "subslotname": Name null, "subsynccommit": Text, "subpublications": TextArray,
    }
    12033 "pg_tables" pg_rows::tables {
        "schemaname": Name, "tablename": Name, "tableowner": Name null, "tablespace": Name null,
        "hasindexes": Bool null, "hasrules": Bool null, "hastriggers": Bool null, "rowsecurity": Bool null,
    }
    1213 "pg_tablespace" pg_rows::tablespaces {
        "oid": Oid, "spcname": Name, "spcowner": Oid, "spcacl": TextArray null, "spcoptions": TextArray null,
    }
    12122 "pg_timezone_abbrevs" zone_rows::abbreviations {
        "abbrev": Text null, "utc_offset": Interval null, "is_dst": Bool null,
    }
    12126 "pg_timezone_names" zone_rows::names {
        "name": Text null, "abbrev": Text null, "utc_offset": Interval null, "is_dst": Bool null,
    }
    3576 "pg_transform" pg_rows::empty {
        "oid": Oid, "trftype": Oid, "trflang": Oid, "trffromsql": RegProc, "trftosql": RegProc,
    }
    2620 "pg_trigger" pg_rows::empty {
        "oid": Oid, "tgrelid": Oid, "tgparentid": Oid, "tgname": Name, "tgfoid": Oid, "tgtype": Int2,
        "tgenabled": QuotedChar, "tgisinternal": Bool, "tgconstrrelid": Oid, "tgconstrindid": Oid,
        "tgconstraint": Oid, "tgdeferrable": Bool, "tginitdeferred": Bool, "tgnargs": Int2, "tgattr": Int2Vector,
        "tgargs": Bytea, "tgqual": Text null, "tgoldtable": Name null, "tgnewtable": Name null,
    }
    3602 "pg_ts_config" pg_rows::empty {
        "oid": Oid, "cfgname": Name, "cfgnamespace": Oid, "cfgowner": Oid, "cfgparser": Oid,
    }
    1247 "pg_type" pg_rows::types {
        "oid": Oid, "typname": Name, "typnamespace": Oid, "typowner": Oid, "typlen": Int2, "typbyval": Bool,
        "typtype": QuotedChar, "typcategory": QuotedChar, "typispreferred": Bool, "typisdefined": Bool,
        "typdelim": QuotedChar, "typrelid": Oid, "typsubscript": RegProc, "typelem": Oid, "typarray": Oid,
        "typinput": RegProc, "typoutput": RegProc, "typreceive": RegProc, "typsend": RegProc, "typmodin": RegProc,
        "typmodout": RegProc, "typanalyze": RegProc, "typalign": QuotedChar, "typstorage": QuotedChar,
        "typnotnull": Bool, "typbasetype": Oid, "typtypmod": Int4, "typndims": Int4, "typcollation": Oid,
        "typdefaultbin": Text null, "typdefault": Text null, "typacl": TextArray null,
    }
    12014 "pg_user" pg_rows::users {
        "usename": Name null, "usesysid": Oid null, "usecreatedb": Bool null, "usesuper": Bool null,
        "userepl": Bool null, "usebypassrls": Bool null, "passwd": Text null, "valuntil": TimestampTz null,
        "useconfig": TextArray null,
    }
    12028 "pg_views" pg_rows::views {
        "schemaname": Name null, "viewname": Name null, "viewowner": Name null, "definition": Text null,
    }
    12023 "pg_rules" pg_rows::empty {
        "schemaname": Name null, "tablename": Name null, "rulename": Name null, "definition": Text null,
    }
    12183 "pg_stat_all_indexes" pg_rows::index_statistics {
        "relid": Oid null, "indexrelid": Oid null, "schemaname": Name null, "relname": Name null,
        "indexrelname": Name null, "idx_scan": Int8 null, "idx_tup_read": Int8 null, "idx_tup_fetch": Int8 null,
    }
    12142 "pg_stat_all_tables" pg_rows::table_statistics {
        "relid": Oid null, "schemaname": Name null, "relname": Name null, "seq_scan": Int8 null,
        "seq_tup_read": Int8 null, "idx_scan": Int8 null, "idx_tup_fetch": Int8 null, "n_tup_ins": Int8 null,
        "n_tup_upd": Int8 null, "n_tup_del": Int8 null, "n_tup_hot_upd": Int8 null, "n_live_tup": Int8 null,
        "n_dead_tup": Int8 null, "n_mod_since_analyze": Int8 null, "n_ins_since_vacuum": Int8 null,
        "last_vacuum": TimestampTz null, "last_autovacuum": TimestampTz null, "last_analyze": TimestampTz null,
        "last_autoanalyze": TimestampTz null, "vacuum_count": Int8 null, "autovacuum_count": Int8 null,
        "analyze_count": Int8 null, "autoanalyze_count": Int8 null,
    }
    12266 "pg_stat_database" pg_rows::database_statistics {
        "datid": Oid null, "datname": Name null, "numbackends": Int4 null, "xact_commit": Int8 null,
        "xact_rollback": Int8 null, "blks_read": Int8 null, "blks_hit": Int8 null, "tup_returned": Int8 null,
        "tup_fetched": Int8 null, "tup_inserted": Int8 null, "tup_updated": Int8 null, "tup_deleted": Int8 null,
        "conflicts": Int8 null, "temp_files": Int8 null, "temp_bytes": Int8 null, "deadlocks": Int8 null,
        "checksum_failures": Int8 null, "checksum_last_failure": TimestampTz null, "blk_read_time": Float8 null,
        "blk_write_time": Float8 null, "session_time": Float8 null, "active_time": Float8 null,
        "idle_in_transaction_time": Float8 null, "sessions": Int8 null, "sessions_abandoned": Int8 null,
        "sessions_fatal": Int8 null, "sessions_killed": Int8 null, "stats_reset": TimestampTz null,
    }
    12192 "pg_stat_user_indexes" pg_rows::index_statistics {
        "relid": Oid null, "indexrelid": Oid null, "schemaname": Name null, "relname": Name null,
        "indexrelname": Name null, "idx_scan": Int8 null, "idx_tup_read": Int8 null, "idx_tup_fetch": Int8 null,
    }
}
