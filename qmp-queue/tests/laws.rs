// SPDX-License-Identifier: MIT OR Apache-2.0
//! The linear list that defines the whole, over random histories, and the laws that do not follow from it or that it is
//! there for.
//!
//! That a queue does what the list does, step by step, includes that each producer's items keep their order, that none
//! is lost or returned twice, that no limit is exceeded, and that whatever is no longer suspended is resumed once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use proptest::collection::vec;
use proptest::prelude::*;

use qmp_queue::{Mode, Producer, ProducerId, PushError, Pushed, Queue, Resume, Ticket};

type Item = u32;

/// Producers and tickets are chosen by a number, modulo how many there are.
#[derive(Clone, Debug)]
enum Op {
    Register(Mode, Hooked),
    Push(usize),
    Pop,
    Done(usize),
    DropTicket(usize),
    SetMode(usize, Mode),
    Clear(usize),
    CloseProducer(usize),
    Finish,
    CloseQueue,
}

type Hooked = bool;

/// What an operation did, as seen by its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Did {
    Nothing,
    Registered(ProducerId, Mode),
    Pushed(ProducerId, Item, Pushed),
    Full(ProducerId, Item),
    Refused(ProducerId, Item),
    Popped(ProducerId, Item),
    FoundNothing,
    WasDone(ProducerId, Item),
    Switched(ProducerId, Mode),
    Cleared(ProducerId, Vec<Item>),
    Closed(ProducerId, Vec<Item>),
    Finished,
    ClosedAll(Vec<(ProducerId, Item)>),
}

struct Step {
    did: Did,
    /// Sorted: nothing is promised about the order in which several producers are resumed.
    resumed: Vec<ProducerId>,
    wakes: usize,
    /// A pop returned that there is more.
    more: bool,
    /// Afterwards.
    suspended: HashSet<ProducerId>,
    len: usize,
    /// Nothing could be popped afterwards.
    idle: bool,
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        2 => Just(Mode::OneInProgress),
        3 => (1..4usize).prop_map(|limit| Mode::UpTo(NonZeroUsize::new(limit).unwrap())),
        3 => (1..4usize).prop_map(|limit| Mode::Serial(NonZeroUsize::new(limit).unwrap())),
        1 => Just(Mode::default()),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let any = any::<usize>;
    prop_oneof![
        12 => (mode(), proptest::bool::ANY).prop_map(|(mode, hooked)| Op::Register(mode, hooked)),
        80 => any().prop_map(Op::Push),
        60 => Just(Op::Pop),
        16 => any().prop_map(Op::Done),
        8 => any().prop_map(Op::DropTicket),
        12 => (any(), mode()).prop_map(|(producer, mode)| Op::SetMode(producer, mode)),
        5 => any().prop_map(Op::Clear),
        5 => any().prop_map(Op::CloseProducer),
        1 => Just(Op::Finish),
        1 => Just(Op::CloseQueue),
    ]
}

fn history() -> impl Strategy<Value = Vec<Op>> {
    vec(op(), 0..if cfg!(miri) { 40 } else { 150 })
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// A queue and all its users.
struct Run {
    queue: Queue<Item>,
    producers: Vec<Producer<Item>>,
    hooked: HashSet<ProducerId>,
    tickets: Vec<(ProducerId, Item, Ticket<Item>)>,
    hook_resumes: Arc<Mutex<Vec<ProducerId>>>,
    wakes: Arc<AtomicUsize>,
    next_item: Item,
}

impl Run {
    fn new() -> Self {
        let wakes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&wakes);
        Self {
            queue: Queue::with_wake_hook(move || _ = counter.fetch_add(1, Ordering::Relaxed)),
            producers: Vec::new(),
            hooked: HashSet::new(),
            tickets: Vec::new(),
            hook_resumes: Arc::default(),
            wakes,
            next_item: 0,
        }
    }

    fn steps(ops: &[Op]) -> Vec<Step> {
        let mut run = Run::new();
        let end = [Op::CloseQueue];
        ops.iter().chain(&end).map(|op| run.step(op)).collect()
    }

    fn suspended(&self) -> HashSet<ProducerId> {
        self.producers.iter().filter(|producer| producer.is_suspended()).map(Producer::id).collect()
    }

    fn step(&mut self, op: &Op) -> Step {
        let mut more = false;
        let (did, resumes) = self.perform(op, &mut more);
        let mut resumed: Vec<_> = resumes.iter().map(Resume::producer).collect();
        resumed.append(&mut self.hook_resumes.lock().unwrap());
        resumed.sort();
        Step {
            did,
            resumed,
            wakes: self.wakes.swap(0, Ordering::Relaxed),
            more,
            suspended: self.suspended(),
            len: self.queue.len(),
            idle: self.queue.is_idle(),
        }
    }

    fn perform(&mut self, op: &Op, more: &mut bool) -> (Did, Vec<Resume>) {
        let producer = |n: usize| self.producers.get(n % self.producers.len().max(1));
        match *op {
            Op::Register(mode, hooked) => {
                let resumes = Arc::clone(&self.hook_resumes);
                let producer = if hooked {
                    let hook =
                        move |resume: Resume| resumes.lock().unwrap().push(resume.producer());
                    self.queue.register_with_hook(mode, hook)
                } else {
                    self.queue.register(mode)
                };
                let did = Did::Registered(producer.id(), mode);
                self.hooked.extend(hooked.then_some(producer.id()));
                self.producers.push(producer);
                (did, vec![])
            }
            Op::Push(n) => {
                let Some(producer) = producer(n) else { return (Did::Nothing, vec![]) };
                let (id, item) = (producer.id(), self.next_item);
                self.next_item += 1;
                let did = match producer.push(item) {
                    Ok(pushed) => Did::Pushed(id, item, pushed),
                    Err(PushError::Full(item)) => Did::Full(id, item),
                    Err(PushError::Closed(item)) => Did::Refused(id, item),
                };
                (did, vec![])
            }
            Op::Pop => {
                let Some(popped) = self.queue.try_pop() else { return (Did::FoundNothing, vec![]) };
                *more = popped.more;
                self.tickets.push((popped.producer, popped.item, popped.ticket));
                (Did::Popped(popped.producer, popped.item), popped.resume.into_iter().collect())
            }
            Op::Done(n) | Op::DropTicket(n) => {
                if self.tickets.is_empty() {
                    return (Did::Nothing, vec![]);
                }
                let (id, item, ticket) = self.tickets.swap_remove(n % self.tickets.len());
                // Only a hook is notified of a resume by a dropped ticket.
                let resume = if matches!(op, Op::DropTicket(_)) && self.hooked.contains(&id) {
                    drop(ticket);
                    None
                } else {
                    ticket.done()
                };
                (Did::WasDone(id, item), resume.into_iter().collect())
            }
            Op::SetMode(n, mode) => {
                let Some(producer) = producer(n) else { return (Did::Nothing, vec![]) };
                let resume = producer.set_mode(mode);
                (Did::Switched(producer.id(), mode), resume.into_iter().collect())
            }
            Op::Clear(n) => {
                let Some(producer) = producer(n) else { return (Did::Nothing, vec![]) };
                let cleared = producer.clear();
                (Did::Cleared(producer.id(), cleared.items), cleared.resume.into_iter().collect())
            }
            Op::CloseProducer(n) => {
                let Some(producer) = producer(n) else { return (Did::Nothing, vec![]) };
                let cleared = producer.close();
                (Did::Closed(producer.id(), cleared.items), cleared.resume.into_iter().collect())
            }
            Op::Finish => {
                self.queue.finish();
                (Did::Finished, vec![])
            }
            Op::CloseQueue => {
                let closed = self.queue.close();
                (Did::ClosedAll(closed.items), closed.resumes)
            }
        }
    }
}

/// The definition of the discipline: a list that is scanned from its head, and whose served member
/// moves to its tail.
#[derive(Default)]
struct LinearList {
    members: Vec<Member>,
    closed: bool,
}

struct Member {
    id: ProducerId,
    mode: Mode,
    items: VecDeque<Item>,
    in_progress: HashSet<Item>,
}

impl Member {
    fn suspended(&self) -> bool {
        match self.mode {
            Mode::OneInProgress => self.items.len() + self.in_progress.len() > 0,
            Mode::UpTo(limit) | Mode::Serial(limit) => self.items.len() >= limit.get(),
            _ => unreachable!("not in a history"),
        }
    }

    fn can_be_served(&self) -> bool {
        let held = matches!(self.mode, Mode::Serial(_)) && !self.in_progress.is_empty();
        !self.items.is_empty() && !held
    }
}

impl LinearList {
    fn suspended(&self) -> HashSet<ProducerId> {
        self.members.iter().filter(|member| member.suspended()).map(|member| member.id).collect()
    }

    fn len(&self) -> usize {
        self.members.iter().map(|member| member.items.len()).sum()
    }

    /// Whether a member has an item that is not held back.
    fn can_be_popped(&self) -> bool {
        self.members.iter().any(Member::can_be_served)
    }

    fn member(&mut self, id: ProducerId) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    fn push(&mut self, id: ProducerId, item: Item) -> Did {
        let closed = self.closed;
        let Some(member) = self.member(id).filter(|_| !closed) else {
            return Did::Refused(id, item);
        };
        if member.suspended() {
            return Did::Full(id, item);
        }
        member.items.push_back(item);
        Did::Pushed(id, item, if member.suspended() { Pushed::Suspended } else { Pushed::Ready })
    }

    fn pop(&mut self) -> Did {
        let Some(first) = self.members.iter().position(Member::can_be_served) else {
            return Did::FoundNothing;
        };
        let mut served = self.members.remove(first);
        let (id, item) = (served.id, served.items.pop_front().unwrap());
        if !matches!(served.mode, Mode::UpTo(_)) {
            served.in_progress.insert(item);
        }
        self.members.push(served);
        Did::Popped(id, item)
    }

    /// Returns what should have been done, given the producer and item of what was done.
    fn perform(&mut self, did: &Did) -> Did {
        match *did {
            Did::Nothing => Did::Nothing,
            Did::Registered(id, mode) => {
                if !self.closed {
                    let member =
                        Member { id, mode, items: VecDeque::new(), in_progress: HashSet::new() };
                    self.members.insert(0, member);
                }
                Did::Registered(id, mode)
            }
            Did::Pushed(id, item, _) | Did::Full(id, item) | Did::Refused(id, item) => {
                self.push(id, item)
            }
            Did::Popped(..) | Did::FoundNothing => self.pop(),
            Did::WasDone(id, item) => {
                if let Some(member) = self.member(id) {
                    member.in_progress.remove(&item);
                }
                Did::WasDone(id, item)
            }
            Did::Switched(id, mode) => {
                if let Some(member) = self.member(id) {
                    member.mode = mode;
                }
                Did::Switched(id, mode)
            }
            Did::Cleared(id, _) => {
                let items = self.member(id).map(|member| std::mem::take(&mut member.items));
                Did::Cleared(id, items.into_iter().flatten().collect())
            }
            Did::Closed(id, _) => {
                let place = self.members.iter().position(|member| member.id == id);
                let items = place.map(|place| self.members.remove(place).items);
                Did::Closed(id, items.into_iter().flatten().collect())
            }
            Did::Finished => {
                self.closed = true;
                Did::Finished
            }
            Did::ClosedAll(_) => {
                let mut items = Vec::new();
                // Items that are held back are returned, too.
                self.members.iter_mut().for_each(|member| member.in_progress.clear());
                for member in &mut self.members {
                    if let Mode::Serial(limit) = member.mode {
                        member.mode = Mode::UpTo(limit);
                    }
                }
                while let Did::Popped(id, item) = self.pop() {
                    items.push((id, item));
                }
                self.closed = true;
                self.members.clear();
                Did::ClosedAll(items)
            }
        }
    }
}

/// Which items are in progress.
#[derive(Default)]
struct Progress {
    modes: HashMap<ProducerId, Mode>,
    items: HashMap<ProducerId, HashSet<Item>>,
}

impl Progress {
    fn follow(&mut self, did: &Did) {
        match *did {
            Did::Registered(id, mode) | Did::Switched(id, mode) => _ = self.modes.insert(id, mode),
            Did::WasDone(id, item) => _ = self.items.entry(id).or_default().remove(&item),
            Did::Popped(id, item) if !matches!(self.modes[&id], Mode::UpTo(_)) => {
                self.items.entry(id).or_default().insert(item);
            }
            _ => {}
        }
    }

    fn is_idle(&self, id: ProducerId) -> bool {
        self.items.get(&id).is_none_or(HashSet::is_empty)
    }

    fn holds_back(&self, id: ProducerId) -> bool {
        matches!(self.modes[&id], Mode::Serial(_)) && !self.is_idle(id)
    }
}

/// The items that a step took out of the queue, in whatever way.
fn taken(did: &Did) -> Vec<(ProducerId, Item)> {
    match did {
        Did::Popped(id, item) => vec![(*id, *item)],
        Did::Cleared(id, items) | Did::Closed(id, items) => {
            items.iter().map(|item| (*id, *item)).collect()
        }
        Did::ClosedAll(items) => items.clone(),
        _ => vec![],
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn step_by_step_as_the_linear_list(ops in history()) {
        let mut list = LinearList::default();
        for step in Run::steps(&ops) {
            let before = list.suspended();
            prop_assert_eq!(&step.did, &list.perform(&step.did));
            let after = list.suspended();
            prop_assert_eq!(step.len, list.len());
            prop_assert_eq!(&step.suspended, &after);
            let mut resumed: Vec<_> = before.difference(&after).copied().collect();
            resumed.sort();
            prop_assert_eq!(step.resumed, resumed);
            prop_assert_eq!(step.idle, !list.can_be_popped());
            if matches!(step.did, Did::Popped(..)) {
                prop_assert_eq!(step.more, list.can_be_popped());
            }
        }
    }

    /// Between two servings of a producer that had something to pop all the time, every other
    /// producer is served at most once.
    #[test]
    fn fairness_bound(ops in history()) {
        let mut queued = HashMap::<ProducerId, usize>::new();
        // For each waiting producer, those that have been served since it was.
        let mut served_since = HashMap::<ProducerId, HashSet<ProducerId>>::new();
        let mut progress = Progress::default();
        for step in Run::steps(&ops) {
            progress.follow(&step.did);
            if let Did::Pushed(id, ..) = step.did {
                *queued.entry(id).or_default() += 1;
            }
            for (id, _) in taken(&step.did) {
                *queued.entry(id).or_default() -= 1;
            }
            if let Did::Popped(served, _) = step.did {
                for (waiting, others) in &mut served_since {
                    if *waiting != served {
                        prop_assert!(others.insert(served), "{} served twice while {} waited", served, waiting);
                    }
                }
                served_since.insert(served, HashSet::new());
            }
            served_since.retain(|id, _| queued[id] > 0 && !progress.holds_back(*id));
        }
    }

    /// Every operation but a pop wakes the consumer once if it makes an idle queue busy, and not
    /// otherwise: no wake-up is lost, and there is no storm of them.
    #[test]
    fn one_wake_up_for_each_transition_from_idle_to_busy(ops in history()) {
        let mut was_idle = true;
        for step in Run::steps(&ops) {
            let begins = was_idle && !step.idle;
            prop_assert_eq!(step.wakes, usize::from(begins));
            if matches!(step.did, Did::Popped(..) | Did::FoundNothing) {
                prop_assert!(!begins);
            }
            was_idle = step.idle;
        }
    }
}
