//! Makes an application forget everything: as if it had never run. Its input and its results stay.

use std::fmt;
use std::path::PathBuf;

use super::identity::{IdentityError, StateDir};
use crate::record::TopicPartition;
use crate::topology::plan::Plan;
use crate::worker::port::{LogAdmin, LogError};

/// Why nothing, or not everything, was removed.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// The application runs.
    #[error(
        "the application {application:?} is running: its consumer group has the members {}; stop them all, \
         and if one was killed, wait until its session has ended (kafka.session_timeout, some seconds)",
        .members.join(", ")
    )]
    Running {
        /// Its name.
        application: String,
        /// The members of its group.
        members: Vec<String>,
    },
    /// Kafka refuses. A reset that has begun is finished by running it again.
    #[error("{0}")]
    Log(#[from] LogError),
    /// The state directory cannot be used.
    #[error("{0}")]
    Local(#[from] IdentityError),
}

/// What a reset removes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reset {
    /// The application: its consumer group.
    pub application: String,
    /// The group's committed offsets.
    pub offsets: Vec<(TopicPartition, i64)>,
    /// The topics that the engine made for the application, also those of earlier versions of it.
    pub topics: Vec<String>,
    /// Topics that look like those but may belong to another application, whose name begins with this
    /// one's. They stay.
    pub doubtful: Vec<String>,
    /// The directory of the application's stores on this machine, if there is one.
    pub stores: Option<PathBuf>,
}

impl Reset {
    /// Finds out what there is to remove. `state`: the state directory, if it exists; locked, so that
    /// no process on this machine can be using the stores.
    pub fn find(
        admin: &mut dyn LogAdmin,
        plan: &Plan,
        state: Option<&StateDir>,
    ) -> Result<Reset, ResetError> {
        let application = plan.name.clone();
        let members = admin.group_members(&application)?;
        if !members.is_empty() {
            return Err(ResetError::Running { application, members });
        }
        let prefix = format!("thalweg.{application}.");
        let mut owned = admin.list(&prefix)?;
        owned.retain(|topic| owned_id(topic, &prefix).is_some());
        let (topics, doubtful) =
            owned.into_iter().partition(|topic| owned_id(topic, &prefix).is_some_and(|id| is_ours(plan, id)));
        let mut offsets = admin.group_offsets(&application)?;
        offsets.sort();
        Ok(Reset {
            offsets,
            topics,
            doubtful,
            stores: state.map(StateDir::stores_path).filter(|path| path.exists()),
            application,
        })
    }

    /// Removes it. The group goes first: Kafka refuses if a member has joined meanwhile, and nothing
    /// is lost then. An application that is started after a reset that ended half-way refuses to run,
    /// since its offsets and its changelog disagree, until the reset is run again.
    pub fn carry_out(&self, admin: &mut dyn LogAdmin, state: Option<&StateDir>) -> Result<(), ResetError> {
        admin.delete_group(&self.application)?;
        if !self.topics.is_empty() {
            admin.delete(&self.topics)?;
        }
        state.map_or(Ok(()), StateDir::remove_stores)?;
        Ok(())
    }

    /// Whether there is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty() && self.topics.is_empty() && self.stores.is_none()
    }
}

/// The id in the name of a topic that the engine made.
fn owned_id<'t>(topic: &'t str, prefix: &str) -> Option<&'t str> {
    let rest = topic.strip_prefix(prefix)?;
    let id = rest.strip_suffix(".changelog").or_else(|| rest.strip_suffix(".repartition"))?;
    (!id.is_empty()).then_some(id)
}

/// `thalweg.a.b.c.changelog` belongs to the id `b.c` of `a` or to the id `c` of `a.b`. It is ours if
/// the topology has that id, or if there is only one way to read it.
fn is_ours(plan: &Plan, id: &str) -> bool {
    !id.contains('.')
        || plan.stages().any(|stage| stage.id() == id)
        || plan.operators.iter().any(|operator| operator.id == id)
}

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            writeln!(f, "nothing: {:?} has no offsets, topics or stores", self.application)?;
        }
        for (partition, offset) in &self.offsets {
            writeln!(f, "group offset  {partition} = {offset}")?;
        }
        for topic in &self.topics {
            writeln!(f, "topic         {topic}")?;
        }
        if let Some(stores) = &self.stores {
            writeln!(f, "stores        {}", stores.display())?;
        }
        for topic in &self.doubtful {
            writeln!(
                f,
                "(stays: topic {topic} may belong to another application; if not, delete it yourself)"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::worker::alignment::Standing;
    use crate::worker::port::{TopicDescription, TopicSpec};

    /// A cluster as far as a reset sees it.
    #[derive(Default)]
    struct Cluster {
        members: Vec<String>,
        offsets: Vec<(TopicPartition, i64)>,
        topics: BTreeSet<String>,
        /// What was done, in order.
        done: Vec<String>,
        refuse_topics: bool,
    }

    impl LogAdmin for Cluster {
        fn list(&mut self, prefix: &str) -> Result<Vec<String>, LogError> {
            Ok(self.topics.iter().filter(|topic| topic.starts_with(prefix)).cloned().collect())
        }
        fn describe(&mut self, _: &[String]) -> Result<Vec<Option<TopicDescription>>, LogError> {
            unreachable!("a reset describes no topics")
        }
        fn create(&mut self, _: &TopicSpec) -> Result<(), LogError> {
            unreachable!("a reset creates no topics")
        }
        fn delete(&mut self, topics: &[String]) -> Result<(), LogError> {
            if self.refuse_topics {
                return Err(LogError::Stop("no right to delete".into()));
            }
            for topic in topics {
                self.topics.remove(topic);
                self.done.push(format!("topic {topic}"));
            }
            Ok(())
        }
        fn delete_records(&mut self, _: &TopicPartition, _: i64) -> Result<i64, LogError> {
            unreachable!("a reset deletes no records")
        }
        fn group_offsets(&mut self, group: &str) -> Result<Vec<(TopicPartition, i64)>, LogError> {
            assert_eq!(group, "a");
            Ok(self.offsets.clone())
        }
        fn finished_partitions(&mut self, _: &str) -> Result<Vec<TopicPartition>, LogError> {
            unreachable!("a reset does not ask what is finished")
        }
        fn standings(&mut self, _: &str) -> Result<Vec<(TopicPartition, Standing)>, LogError> {
            unreachable!("a reset does not ask how far partitions are")
        }
        fn group_members(&mut self, group: &str) -> Result<Vec<String>, LogError> {
            assert_eq!(group, "a");
            Ok(self.members.clone())
        }
        fn delete_group(&mut self, group: &str) -> Result<(), LogError> {
            if !self.members.is_empty() {
                return Err(LogError::Stop("NON_EMPTY_GROUP".into()));
            }
            self.offsets.clear();
            self.done.push(format!("group {group}"));
            Ok(())
        }
    }

    fn cluster(topics: &[&str]) -> Cluster {
        Cluster {
            offsets: vec![(TopicPartition::new("orders", 1), 7), (TopicPartition::new("orders", 0), 40)],
            topics: topics.iter().map(ToString::to_string).collect(),
            ..Cluster::default()
        }
    }

    fn plan() -> Plan {
        Plan { name: "a".into(), sources: vec![], operators: vec![], repartitions: vec![], sinks: vec![] }
    }

    #[test]
    fn offsets_topics_and_stores_go_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::open(temp.path(), "a").unwrap();
        std::fs::create_dir_all(temp.path().join("a/orders-0")).unwrap();
        let ours = ["thalweg.a.orders.changelog", "thalweg.a.total.repartition"];
        let others = [
            "orders",
            "thalweg.a.orders",
            "thalweg.a..changelog",
            "thalweg.ab.orders.changelog",
            "thalweg.b.orders.changelog",
        ];
        let mut cluster = cluster(&[&ours[..], &others[..]].concat());
        let reset = Reset::find(&mut cluster, &plan(), Some(&state)).unwrap();
        assert_eq!(
            reset.to_string().replace(temp.path().to_str().unwrap(), "DIR"),
            "group offset  orders[0] = 40\ngroup offset  orders[1] = 7\n\
             topic         thalweg.a.orders.changelog\ntopic         thalweg.a.total.repartition\n\
             stores        DIR/a\n"
        );
        assert!(cluster.done.is_empty(), "looking changes nothing");

        reset.carry_out(&mut cluster, Some(&state)).unwrap();
        assert_eq!(cluster.topics, others.iter().map(ToString::to_string).collect());
        assert_eq!(cluster.done[0], "group a", "the group goes first");
        assert!(!temp.path().join("a").exists());
        let again = Reset::find(&mut cluster, &plan(), Some(&state)).unwrap();
        assert!(again.is_empty(), "{again:?}");
        again.carry_out(&mut cluster, Some(&state)).unwrap();
    }

    #[test]
    fn topics_that_may_belong_to_another_application_stay() {
        let mut cluster = cluster(&["thalweg.a.b.orders.changelog", "thalweg.a.v1.orders.changelog"]);
        let mut plan = plan();
        plan.operators.push(crate::topology::plan::OperatorPlan {
            id: "v1.orders".into(),
            inputs: vec![crate::topology::plan::StreamRef::Source(0)],
            schema: Default::default(),
            on_error: Default::default(),
            kind: crate::topology::plan::OperatorKind::Map { slots: vec![] },
        });
        let reset = Reset::find(&mut cluster, &plan, None).unwrap();
        assert_eq!(reset.topics, ["thalweg.a.v1.orders.changelog"]);
        assert_eq!(reset.doubtful, ["thalweg.a.b.orders.changelog"]);
        assert!(reset.to_string().contains("stays: topic thalweg.a.b.orders.changelog"), "{reset}");
    }

    #[test]
    fn a_running_application_is_refused() {
        let mut cluster = cluster(&["thalweg.a.orders.changelog"]);
        cluster.members = vec!["member-1".into()];
        let error = Reset::find(&mut cluster, &plan(), None).unwrap_err();
        assert!(error.to_string().contains("member-1"), "{error}");
    }

    #[test]
    fn a_member_that_joins_meanwhile_stops_it_before_anything_is_lost() {
        let mut cluster = cluster(&["thalweg.a.orders.changelog"]);
        let reset = Reset::find(&mut cluster, &plan(), None).unwrap();
        cluster.members = vec!["member-1".into()];
        reset.carry_out(&mut cluster, None).unwrap_err();
        assert!(cluster.done.is_empty());
        assert_eq!(cluster.topics.len(), 1);
    }

    #[test]
    fn a_reset_that_ended_half_way_is_finished_by_the_next() {
        let mut cluster = cluster(&["thalweg.a.orders.changelog"]);
        cluster.refuse_topics = true;
        let reset = Reset::find(&mut cluster, &plan(), None).unwrap();
        reset.carry_out(&mut cluster, None).unwrap_err();
        cluster.refuse_topics = false;
        let rest = Reset::find(&mut cluster, &plan(), None).unwrap();
        assert_eq!((rest.offsets.len(), rest.topics.len()), (0, 1));
        rest.carry_out(&mut cluster, None).unwrap();
        assert!(cluster.topics.is_empty());
    }
}
