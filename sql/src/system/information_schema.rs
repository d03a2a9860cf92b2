//! The relations of `information_schema`, with the columns they have in PostgreSQL 15.

use super::information_rows;
use super::{Kind, Relation, column, declare, nullable};

declare! { "information_schema":
    17000 "applicable_roles" information_rows::empty {
        "grantee": Text null, "role_name": Text null, "is_grantable": Text null,
    }
    17001 "character_sets" information_rows::character_sets {
        "character_set_catalog": Text null, "character_set_schema": Text null, "character_set_name": Text null,
        "character_repertoire": Text null, "form_of_use": Text null, "default_collate_catalog": Text null,
        "default_collate_schema": Text null, "default_collate_name": Text null,
    }
    17002 "check_constraints" information_rows::empty {
        "constraint_catalog": Text null, "constraint_schema": Text null, "constraint_name": Text null,
        "check_clause": Text null,
    }
    17003 "columns" information_rows::columns {
        "table_catalog": Text null, "table_schema": Text null, "table_name": Text null, "column_name": Text null,
        "ordinal_position": Int4 null, "column_default": Text null, "is_nullable": Text null, "data_type": Text null,
        "character_maximum_length": Int4 null, "character_octet_length": Int4 null, "numeric_precision": Int4 null,
        "numeric_precision_radix": Int4 null, "numeric_scale": Int4 null, "datetime_precision": Int4 null,
        "interval_type": Text null, "interval_precision": Int4 null, "character_set_catalog": Text null,
        "character_set_schema": Text null, "character_set_name": Text null, "collation_catalog": Text null,
        "collation_schema": Text null, "collation_name": Text null, "domain_catalog": Text null,
        "domain_schema": Text null, "domain_name": Text null, "udt_catalog": Text null, "udt_schema": Text null,
        "udt_name": Text null, "scope_catalog": Text null, "scope_schema": Text null, "scope_name": Text null,
        "maximum_cardinality": Int4 null, "dtd_identifier": Text null, "is_self_referencing": Text null,
        "is_identity": Text null, "identity_generation": Text null, "identity_start": Text null,
        "identity_increment": Text null, "identity_maximum": Text null, "identity_minimum": Text null,
        "identity_cycle": Text null, "is_generated": Text null, "generation_expression": Text null,
        "is_updatable": Text null,
    }
    17004 "constraint_column_usage" information_rows::constraint_columns {
        "table_catalog": Text null, "table_schema": Text null, "table_name": Text null, "column_name": Text null,
        "constraint_catalog": Text null, "constraint_schema": Text null, "constraint_name": Text null,
    }
    17005 "enabled_roles" information_rows::enabled_roles {
        "role_name": Text null,
    }
    17006 "information_schema_catalog_name" information_rows::catalog_name {
        "catalog_name": Text null,
    }
    17007 "key_column_usage" information_rows::key_columns {
        "constraint_catalog": Text null, "constraint_schema": Text null, "constraint_name": Text null,
        "table_catalog": Text null, "table_schema": Text null, "table_name": Text null, "column_name": Text null,
        "ordinal_position": Int4 null, "position_in_unique_constraint": Int4 null,
    }
    17008 "parameters" information_rows::empty {
        "specific_catalog": Text null, "specific_schema": Text null, "specific_name": Text null,
        "ordinal_position": Int4 null, "parameter_mode": Text null, "is_result": Text null, "as_locator": Text null,
        "parameter_name": Text null, "data_type": Text null, "character_maximum_length": Int4 null,
        "character_octet_length": Int4 null, "character_set_catalog": Text null, "character_set_schema": Text null,
        "character_set_name": Text null, "collation_catalog": Text null, "collation_schema": Text null,
        "collation_name": Text null, "numeric_precision": Int4 null, "numeric_precision_radix": Int4 null,
        "numeric_scale": Int4 null, "datetime_precision": Int4 null, "interval_type": Text null,
        "interval_precision": Int4 null, "udt_catalog": Text null, "udt_schema": Text null, "udt_name": Text null,
        "scope_catalog": Text null, "scope_schema": Text null, "scope_name": Text null,
        "maximum_cardinality": Int4 null, "dtd_identifier": Text null, "parameter_default": Text null,
    }
    17009 "referential_constraints" information_rows::empty {
        "constraint_catalog": Text null, "constraint_schema": Text null, "constraint_name": Text null,
        "unique_constraint_catalog": Text null, "unique_constraint_schema": Text null,
        "unique_constraint_name": Text null, "match_option": Text null, "update_rule": Text null,
        "delete_rule": Text null,
    }
    17010 "role_table_grants" information_rows::empty {
        "grantor": Text null, "grantee": Text null, "table_catalog": Text null, "table_schema": Text null,
        "table_name": Text null, "privilege_type": Text null, "is_grantable": Text null, "with_hierarchy": Text null,
    }
    17011 "routines" information_rows::empty {
        "specific_catalog": Text null, "specific_schema": Text null, "specific_name": Text null,
        "routine_catalog": Text null, "routine_schema": Text null, "routine_name": Text null,
        "routine_type": Text null, "module_catalog": Text null, "module_schema": Text null, "module_name": Text null,
        "udt_catalog": Text null, "udt_schema": Text null, "udt_name": Text null, "data_type": Text null,
        "character_maximum_length": Int4 null, "character_octet_length": Int4 null,
        "character_set_catalog": Text null, "character_set_schema": Text null, "character_set_name": Text null,
        "collation_catalog": Text null, "collation_schema": Text null, "collation_name": Text null,
        "numeric_precision": Int4 null, "numeric_precision_radix": Int4 null, "numeric_scale": Int4 null,
        "datetime_precision": Int4 null, "interval_type": Text null, "interval_precision": Int4 null,
        "type_udt_catalog": Text null, "type_udt_schema": Text null, "type_udt_name": Text null,
        "scope_catalog": Text null, "scope_schema": Text null, "scope_name": Text null,
        "maximum_cardinality": Int4 null, "dtd_identifier": Text null, "routine_body": Text null,
        "routine_definition": Text null, "external_name": Text null, "external_language": Text null,
        "parameter_style": Text null, "is_deterministic": Text null, "sql_data_access": Text null,
        "is_null_call": Text null, "sql_path": Text null, "schema_level_routine": Text null,
        "max_dynamic_result_sets": Int4 null, "is_user_defined_cast": Text null,
        "is_implicitly_invocable": Text null, "security_type": Text null, "to_sql_specific_catalog": Text null,
        "to_sql_specific_schema": Text null, "to_sql_specific_name": Text null, "as_locator": Text null,
        "created": TimestampTz null, "last_altered": TimestampTz null, "new_savepoint_level": Text null,
        "is_udt_dependent": Text null, "result_cast_from_data_type": Text null, "result_cast_as_locator": Text null,
        "result_cast_char_max_length": Int4 null, "result_cast_char_octet_length": Int4 null,
        "result_cast_char_set_catalog": Text null, "result_cast_char_set_schema": Text null,
        "result_cast_char_set_name": Text null, "result_cast_collation_catalog": Text null,
        "result_cast_collation_schema": Text null, "result_cast_collation_name": Text null,
        "result_cast_numeric_precision": Int4 null, "result_cast_numeric_precision_radix": Int4 null,
        "result_cast_numeric_scale": Int4 null, "result_cast_datetime_precision": Int4 null,
        "result_cast_interval_type": Text null, "result_cast_interval_precision": Int4 null,
        "result_cast_type_udt_catalog": Text null, "result_cast_type_udt_schema": Text null,
        "result_cast_type_udt_name": Text null, "result_cast_scope_catalog": Text null,
        "result_cast_scope_schema": Text null, "result_cast_scope_name": Text null,
        "result_cast_maximum_cardinality": Int4 null, "result_cast_dtd_identifier": Text null,
    }
    17012 "schemata" information_rows::schemata {
        "catalog_name": Text null, "schema_name": Text null, "schema_owner": Text null,
        "default_character_set_catalog": Text null, "default_character_set_schema": Text null,
        "default_character_set_name": Text null, "sql_path": Text null,
    }
    17013 "sequences" information_rows::empty {
        "sequence_catalog": Text null, "sequence_schema": Text null, "sequence_name": Text null,
        "data_type": Text null, "numeric_precision": Int4 null, "numeric_precision_radix": Int4 null,
        "numeric_scale": Int4 null, "start_value": Text null, "minimum_value": Text null, "maximum_value": Text null,
        "increment": Text null, "cycle_option": Text null,
    }
    17014 "table_constraints" information_rows::table_constraints {
        "constraint_catalog": Text null, "constraint_schema": Text null, "constraint_name": Text null,
        "table_catalog": Text null, "table_schema": Text null, "table_name": Text null, "constraint_type": Text null,
        "is_deferrable": Text null, "initially_deferred": Text null, "enforced": Text null,
        "nulls_distinct": Text null,
    }
    17015 "table_privileges" information_rows::empty {
        "grantor": Text null, "grantee": Text null, "table_catalog": Text null, "table_schema": Text null,
        "table_name": Text null, "privilege_type": Text null, "is_grantable": Text null, "with_hierarchy": Text null,
    }
    17016 "tables" information_rows::tables {
        "table_catalog": Text null, "table_schema": Text null, "table_name": Text null, "table_type": Text null,
        "self_referencing_column_name": Text null, "reference_generation": Text null,
        "user_defined_type_catalog": Text null, "user_defined_type_schema": Text null,
        "user_defined_type_name": Text null, "is_insertable_into": Text null, "is_typed": Text null,
        "commit_action": Text null,
    }
    17017 "triggers" information_rows::empty {
        "trigger_catalog": Text null, "trigger_schema": Text null, "trigger_name": Text null,
        "event_manipulation": Text null, "event_object_catalog": Text null, "event_object_schema": Text null,
        "event_object_table": Text null, "action_order": Int4 null, "action_condition": Text null,
        "action_statement": Text null, "action_orientation": Text null, "action_timing": Text null,
        "action_reference_old_table": Text null, "action_reference_new_table": Text null,
        "action_reference_old_row": Text null, "action_reference_new_row": Text null, "created": TimestampTz null,
    }
    17018 "views" information_rows::views {
        "table_catalog": Text null, "table_schema": Text null, "table_name": Text null, "view_definition": Text null,
        "check_option": Text null, "is_updatable": Text null, "is_insertable_into": Text null,
        "is_trigger_updatable": Text null, "is_trigger_deletable": Text null,
        "is_trigger_insertable_into": Text null,
    }
    17104 "collations" information_rows::collations {
        "collation_catalog": Text null, "collation_schema": Text null, "collation_name": Text null,
        "pad_attribute": Text null,
    }
    17110 "constraint_table_usage" information_rows::constraint_tables {
        "table_catalog": Text null, "table_schema": Text null, "table_name": Text null,
        "constraint_catalog": Text null, "constraint_schema": Text null, "constraint_name": Text null,
    }
    17144 "view_table_usage" information_rows::view_tables {
        "view_catalog": Text null, "view_schema": Text null, "view_name": Text null, "table_catalog": Text null,
        "table_schema": Text null, "table_name": Text null,
    }
}
