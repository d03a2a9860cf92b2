//! Recursive queries: the domain is a part of their rows.

use std::sync::Arc;

use arrow_schema::{Field, Schema};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::Result;
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, RecursiveQuery, TableScan};

use super::Carrying;
use crate::unnest::expressions::{broken, filtered, named, projected};

impl Carrying<'_> {
    pub(super) fn recursive(&mut self, query: &RecursiveQuery) -> Result<LogicalPlan> {
        let first = self.node(&query.static_term)?;
        let first = self.renamed(first, &query.static_term.schema().columns())?;
        self.works.push(query.name.clone());
        self.asking
            .add(&query.recursive_term, &self.domain.asked, &self.works)?;
        let next = self.node(&query.recursive_term)?;
        let next = self.renamed(next, &query.recursive_term.schema().columns())?;
        self.works.pop();
        let carried = RecursiveQuery::try_new(
            query.name.clone(),
            Arc::new(first),
            Arc::new(next),
            query.is_distinct,
        )?;
        self.renamed(
            LogicalPlan::RecursiveQuery(carried),
            &query.schema.columns(),
        )
    }

    /// The rows of the last round, with the values of the domain that they are for.
    pub(super) fn work_table(&self, scan: &TableScan) -> Result<LogicalPlan> {
        let provider = source_as_provider(&scan.source)?;
        let Some(table) = provider.downcast_ref::<CteWorkTable>() else {
            return Err(broken("a scan asks for columns of a query around it"));
        };
        let width = self.domain.named.len();
        let of_domain = self.domain.plan.schema().fields().iter();
        let mut fields: Vec<Field> = of_domain
            .zip(&self.domain.named)
            .map(|(field, column)| {
                let field = field.as_ref().clone().with_nullable(true);
                field.with_name(column.name.clone())
            })
            .collect();
        let rows = table.schema();
        fields.extend(rows.fields().iter().map(|field| field.as_ref().clone()));
        let wide = CteWorkTable::new(table.name(), Arc::new(Schema::new(fields)));
        let source = provider_as_source(Arc::new(wide));
        let scanned = LogicalPlanBuilder::scan(scan.table_name.clone(), source, None)?.build()?;
        let columns = scanned.schema().columns();
        let whole: Vec<usize> = (0..rows.fields().len()).collect();
        let taken = scan.projection.as_ref().unwrap_or(&whole);
        let places = (0..width).chain(taken.iter().map(|place| width + place));
        let shown = scan.projected_schema.columns();
        let names = self.domain.named.iter().chain(&shown);
        let mut items = Vec::new();
        for (place, name) in places.zip(names) {
            let column = columns
                .get(place)
                .ok_or_else(|| broken("a work table has the columns of its query"))?;
            items.push(named(Expr::Column(column.clone()), name));
        }
        projected(filtered(scanned, scan.filters.clone())?, items)
    }
}
