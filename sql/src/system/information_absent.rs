//! The relations of information_schema about what does not exist here, with the columns that they have in PostgreSQL 15: all of them are empty.

use super::pg_rows;
use super::{Kind, Relation, column, declare, nullable};

declare! { "information_schema":
    17100 "administrable_role_authorizations" pg_rows::empty {
        "grantee": Text null, "role_name": Text null, "is_grantable": Text null,
    }
    17101 "attributes" pg_rows::empty {
        "udt_catalog": Text null, "udt_schema": Text null, "udt_name": Text null, "attribute_name": Text null,
        "ordinal_position": Int4 null, "attribute_default": Text null, "is_nullable": Text null,
        "data_type": Text null, "character_maximum_length": Int4 null, "character_octet_length": Int4 null,
        "character_set_catalog": Text null, "character_set_schema": Text null, "character_set_name": Text null,
        "collation_catalog": Text null, "collation_schema": Text null, "collation_name": Text null,
        "numeric_precision": Int4 null, "numeric_precision_radix": Int4 null, "numeric_scale": Int4 null,
        "datetime_precision": Int4 null, "interval_type": Text null, "interval_precision": Int4 null,
        "attribute_udt_catalog": Text null, "attribute_udt_schema": Text null, "attribute_udt_name": Text null,
        "scope_catalog": Text null, "scope_schema": Text null, "scope_name": Text null,
        "maximum_cardinality": Int4 null, "dtd_identifier": Text null, "is_derived_reference_attribute": Text null,
    }
    17102 "check_constraint_routine_usage" pg_rows::empty {
        "constraint_catalog": Text null, "constraint_schema": Text null, "constraint_name": Text null,
        "specific_catalog": Text null, "specific_schema": Text null, "specific_name": Text null,
    }
    17103 "collation_character_set_applicability" pg_rows::empty {
        "collation_catalog": Text null, "collation_schema": Text null, "collation_name": Text null,
        "character_set_catalog": Text null, "character_set_schema": Text null, "character_set_name": Text null,
    }
    17105 "column_column_usage" pg_rows::empty {
        "table_catalog": Text null, "table_schema": Text null, "table_name": Text null, "column_name": Text null,
        "dependent_column": Text null,
    }
    17106 "column_domain_usage" pg_rows::empty {
        "domain_catalog": Text null, "domain_schema": Text null, "domain_name": Text null,
        "table_catalog": Text null, "table_schema": Text null, "table_name": Text null, "column_name": Text null,
    }
    17107 "column_options" pg_rows::empty {
        "table_catalog": Text null, "table_schema": Text null, "table_name": Text null, "column_name": Text null,
        "option_name": Text null, "option_value": Text null,
    }
    17108 "column_privileges" pg_rows::empty {
        "grantor": Text null, "grantee": Text null, "table_catalog": Text null, "table_schema": Text null,
        "table_name": Text null, "column_name": Text null, "privilege_type": Text null, "is_grantable": Text null,
    }
    17109 "column_udt_usage" pg_rows::empty {
        "udt_catalog": Text null, "udt_schema": Text null, "udt_name": Text null, "table_catalog": Text null,
        "table_schema": Text null, "table_name": Text null, "column_name": Text null,
    }
    17111 "data_type_privileges" pg_rows::empty {
        "object_catalog": Text null, "object_schema": Text null, "object_name": Text null, "object_type": Text null,
        "dtd_identifier": Text null,
    }
    17112 "domain_constraints" pg_rows::empty {
        "constraint_catalog": Text null, "constraint_schema": Text null, "constraint_name": Text null,
        "domain_catalog": Text null, "domain_schema": Text null, "domain_name": Text null,
        "is_deferrable": Text null, "initially_deferred": Text null,
    }
    17113 "domain_udt_usage" pg_rows::empty {
        "udt_catalog": Text null, "udt_schema": Text null, "udt_name": Text null, "domain_catalog": Text null,
        "domain_schema": Text null, "domain_name": Text null,
    }
    17114 "domains" pg_rows::empty {
        "domain_catalog": Text null, "domain_schema": Text null, "domain_name": Text null, "data_type": Text null,
        "character_maximum_length": Int4 null, "character_octet_length": Int4 null,
        "character_set_catalog": Text null, "character_set_schema": Text null, "character_set_name": Text null,
        "collation_catalog": Text null, "collation_schema": Text null, "collation_name": Text null,
        "numeric_precision": Int4 null, "numeric_precision_radix": Int4 null, "numeric_scale": Int4 null,
        "datetime_precision": Int4 null, "interval_type": Text null, "interval_precision": Int4 null,
        "domain_default": Text null, "udt_catalog": Text null, "udt_schema": Text null, "udt_name": Text null,
        "scope_catalog": Text null, "scope_schema": Text null, "scope_name": Text null,
        "maximum_cardinality": Int4 null, "dtd_identifier": Text null,
    }
    17115 "element_types" pg_rows::empty {
        "object_catalog": Text null, "object_schema": Text null, "object_name": Text null, "object_type": Text null,
        "collection_type_identifier": Text null, "data_type": Text null, "character_maximum_length": Int4 null,
        "character_octet_length": Int4 null, "character_set_catalog": Text null, "character_set_schema": Text null,
        "character_set_name": Text null, "collation_catalog": Text null, "collation_schema": Text null,
        "collation_name": Text null, "numeric_precision": Int4 null, "numeric_precision_radix": Int4 null,
        "numeric_scale": Int4 null, "datetime_precision": Int4 null, "interval_type": Text null,
        "interval_precision": Int4 null, "domain_default": Text null, "udt_catalog": Text null,
        "udt_schema": Text null, "udt_name": Text null, "scope_catalog": Text null, "scope_schema": Text null,
        "scope_name": Text null, "maximum_cardinality": Int4 null, "dtd_identifier": Text null,
    }
    17116 "foreign_data_wrapper_options" pg_rows::empty {
        "foreign_data_wrapper_catalog": Text null, "foreign_data_wrapper_name": Text null, "option_name": Text null,
        "option_value": Text null,
    }
    17117 "foreign_data_wrappers" pg_rows::empty {
        "foreign_data_wrapper_catalog": Text null, "foreign_data_wrapper_name": Text null,
        "authorization_identifier": Text null, "library_name": Text null, "foreign_data_wrapper_language": Text null,
    }
    17118 "foreign_server_options" pg_rows::empty {
        "foreign_server_catalog": Text null, "foreign_server_name": Text null, "option_name": Text null,
        "option_value": Text null,
    }
    17119 "foreign_servers" pg_rows::empty {
        "foreign_server_catalog": Text null, "foreign_server_name": Text null,
        "foreign_data_wrapper_catalog": Text null, "foreign_data_wrapper_name": Text null,
        "foreign_server_type": Text null, "foreign_server_version": Text null, "authorization_identifier": Text null,
    }
    17120 "foreign_table_options" pg_rows::empty {
        "foreign_table_catalog": Text null, "foreign_table_schema": Text null, "foreign_table_name": Text null,
        "option_name": Text null, "option_value": Text null,
    }
    17121 "foreign_tables" pg_rows::empty {
        "foreign_table_catalog": Text null, "foreign_table_schema": Text null, "foreign_table_name": Text null,
        "foreign_server_catalog": Text null, "foreign_server_name": Text null,
    }
    17122 "role_column_grants" pg_rows::empty {
        "grantor": Text null, "grantee": Text null, "table_catalog": Text null, "table_schema": Text null,
        "table_name": Text null, "column_name": Text null, "privilege_type": Text null, "is_grantable": Text null,
    }
    17123 "role_routine_grants" pg_rows::empty {
        "grantor": Text null, "grantee": Text null, "specific_catalog": Text null, "specific_schema": Text null,
        "specific_name": Text null, "routine_catalog": Text null, "routine_schema": Text null,
        "routine_name": Text null, "privilege_type": Text null, "is_grantable": Text null,
    }
    17124 "role_udt_grants" pg_rows::empty {
        "grantor": Text null, "grantee": Text null, "udt_catalog": Text null, "udt_schema": Text null,
        "udt_name": Text null, "privilege_type": Text null, "is_grantable": Text null,
    }
    17125 "role_usage_grants" pg_rows::empty {
        "grantor": Text null, "grantee": Text null, "object_catalog": Text null, "object_schema": Text null,
        "object_name": Text null, "object_type": Text null, "privilege_type": Text null, "is_grantable": Text null,
    }
    17126 "routine_column_usage" pg_rows::empty {
        "specific_catalog": Text null, "specific_schema": Text null, "specific_name": Text null,
        "routine_catalog": Text null, "routine_schema": Text null, "routine_name": Text null,
        "table_catalog": Text null, "table_schema": Text null, "table_name": Text null, "column_name": Text null,
    }
    17127 "routine_privileges" pg_rows::empty {
        "grantor": Text null, "grantee": Text null, "specific_catalog": Text null, "specific_schema": Text null,
        "specific_name": Text null, "routine_catalog": Text null, "routine_schema": Text null,
        "routine_name": Text null, "privilege_type": Text null, "is_grantable": Text null,
    }
    17128 "routine_routine_usage" pg_rows::empty {
        "specific_catalog": Text null, "specific_schema": Text null, "specific_name": Text null,
        "routine_catalog": Text null, "routine_schema": Text null, "routine_name": Text null,
    }
    17129 "routine_sequence_usage" pg_rows::empty {
        "specific_catalog": Text null, "specific_schema": Text null, "specific_name": Text null,
        "routine_catalog": Text null, "routine_schema": Text null, "routine_name": Text null,
        "sequence_catalog": Text null, "sequence_schema": Text null, "sequence_name": Text null,
    }
    17130 "routine_table_usage" pg_rows::empty {
        "specific_catalog": Text null, "specific_schema": Text null, "specific_name": Text null,
        "routine_catalog": Text null, "routine_schema": Text null, "routine_name": Text null,
        "table_catalog": Text null, "table_schema": Text null, "table_name": Text null,
    }
    17131 "sql_features" pg_rows::empty {
        "feature_id": Text null, "feature_name": Text null, "sub_feature_id": Text null,
        "sub_feature_name": Text null, "is_supported": Text null, "is_verified_by": Text null, "comments": Text null,
    }
    17132 "sql_implementation_info" pg_rows::empty {
        "implementation_info_id": Text null, "implementation_info_name": Text null, "integer_value": Int4 null,
        "character_value": Text null, "comments": Text null,
    }
    17133 "sql_parts" pg_rows::empty {
        "feature_id": Text null, "feature_name": Text null, "is_supported": Text null, "is_verified_by": Text null,
        "comments": Text null,
    }
    17134 "sql_sizing" pg_rows::empty {
        "sizing_id": Int4 null, "sizing_name": Text null, "supported_value": Int4 null, "comments": Text null,
    }
    17135 "transforms" pg_rows::empty {
        "udt_catalog": Text null, "udt_schema": Text null, "udt_name": Text null, "specific_catalog": Text null,
        "specific_schema": Text null, "specific_name": Text null, "group_name": Text null,
        "transform_type": Text null,
    }
    17136 "triggered_update_columns" pg_rows::empty {
        "trigger_catalog": Text null, "trigger_schema": Text null, "trigger_name": Text null,
        "event_object_catalog": Text null, "event_object_schema": Text null, "event_object_table": Text null,
        "event_object_column": Text null,
    }
    17137 "udt_privileges" pg_rows::empty {
        "grantor": Text null, "grantee": Text null, "udt_catalog": Text null, "udt_schema": Text null,
        "udt_name": Text null, "privilege_type": Text null, "is_grantable": Text null,
    }
    17138 "usage_privileges" pg_rows::empty {
        "grantor": Text null, "grantee": Text null, "object_catalog": Text null, "object_schema": Text null,
        "object_name": Text null, "object_type": Text null, "privilege_type": Text null, "is_grantable": Text null,
    }
    17139 "user_defined_types" pg_rows::empty {
        "user_defined_type_catalog": Text null, "user_defined_type_schema": Text null,
        "user_defined_type_name": Text null, "user_defined_type_category": Text null, "is_instantiable": Text null,
        "is_final": Text null, "ordering_form": Text null, "ordering_category": Text null,
        "ordering_routine_catalog": Text null, "ordering_routine_schema": Text null,
        "ordering_routine_name": Text null, "reference_type": Text null, "data_type": Text null,
        "character_maximum_length": Int4 null, "character_octet_length": Int4 null,
        "character_set_catalog": Text null, "character_set_schema": Text null, "character_set_name": Text null,
        "collation_catalog": Text null, "collation_schema": Text null, "collation_name": Text null,
        "numeric_precision": Int4 null, "numeric_precision_radix": Int4 null, "numeric_scale": Int4 null,
        "datetime_precision": Int4 null, "interval_type": Text null, "interval_precision": Int4 null,
        "source_dtd_identifier": Text null, "ref_dtd_identifier": Text null,
    }
    17140 "user_mapping_options" pg_rows::empty {
        "authorization_identifier": Text null, "foreign_server_catalog": Text null, "foreign_server_name": Text null,
        "option_name": Text null, "option_value": Text null,
    }
    17141 "user_mappings" pg_rows::empty {
        "authorization_identifier": Text null, "foreign_server_catalog": Text null, "foreign_server_name": Text null,
    }
    17142 "view_column_usage" pg_rows::empty {
        "view_catalog": Text null, "view_schema": Text null, "view_name": Text null, "table_catalog": Text null,
        "table_schema": Text null, "table_name": Text null, "column_name": Text null,
    }
    17143 "view_routine_usage" pg_rows::empty {
        "table_catalog": Text null, "table_schema": Text null, "table_name": Text null,
        "specific_catalog": Text null, "specific_schema": Text null, "specific_name": Text null,
    }
}
