//! Who is in a handshake, and who makes room when there are as many as there may be.
//!
//! Why not simply close the newest: one stranger that opens connections and says nothing would close the door to everybody.
//! Why not so many for an address: many callers may stand behind one, as behind a proxy or a cluster's nodes.
//! Promises: while there is room anybody takes it. Without it, an address that has fewer than another gets a place of the one
//! that has most: one of those that have said nothing, else the oldest. Among equals only those who have said nothing make
//! room; who has spoken keeps its place, so that of a crowd that comes back at once some get through.
//! Not here: how long one may stay (`handshake`).

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Handshakes under way. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Handshakes(Arc<Mutex<Places>>);

/// One of them, until dropped.
pub(crate) struct Place {
    number: u64,
    of: Handshakes,
    lost: CancellationToken,
}

/// A connection that came when there was no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// Who has most of the places, and how many.
    pub(super) most: (IpAddr, usize),
}

#[derive(Default)]
struct Places {
    /// By age.
    taken: BTreeMap<u64, Taken>,
    /// How many an address has; none has 0.
    shares: HashMap<IpAddr, usize>,
    next: u64,
}

struct Taken {
    by: IpAddr,
    silent: bool,
    /// Tells its owner that the place is somebody else's.
    _lost: DropGuard,
}

impl Handshakes {
    /// A place for a connection from `address`, and who had to make room for it if there was none; `Err`: nobody had to.
    pub(super) fn enter(&self, address: IpAddr, limit: usize) -> Result<(Place, Option<Full>), Full> {
        let by = one_of(address);
        let mut places = self.0.lock();
        let full = if places.taken.len() < limit { None } else { Some(places.make_room_for(by)?) };
        let lost = CancellationToken::new();
        let number = places.next;
        places.next += 1;
        places.taken.insert(number, Taken { by, silent: true, _lost: lost.clone().drop_guard() });
        *places.shares.entry(by).or_default() += 1;
        Ok((Place { number, of: self.clone(), lost }, full))
    }
}

impl Place {
    /// Notes that something has come from its owner.
    pub(super) fn spoke(&self) {
        if let Some(taken) = self.of.0.lock().taken.get_mut(&self.number) {
            taken.silent = false;
        }
    }

    /// Resolves when it was given to somebody else.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// What comes of `work`, unless the place is lost before its end.
    pub(crate) async fn keep<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.lost.run_until_cancelled(work).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.0.lock().free(self.number);
    }
}

impl Places {
    fn make_room_for(&mut self, by: IpAddr) -> Result<Full, Full> {
        let own = self.shares.get(&by).copied().unwrap_or(0);
        let most = self.shares.iter().map(|(address, share)| (*address, *share)).max_by_key(|(_, share)| *share);
        // Without a single place there is nobody to ask.
        let full = Full { most: most.unwrap_or((by, 0)) };
        let (greediest, share) = full.most;
        let out = if share > own + 1 {
            let mut theirs = self.taken.iter().filter(|(_, taken)| taken.by == greediest);
            let silent = theirs.clone().find(|(_, taken)| taken.silent);
            silent.or_else(|| theirs.next())
        } else {
            // Whoever has less than the new one is no equal.
            let has_less = |taken: &Taken| self.shares.get(&taken.by).is_some_and(|share| *share < own);
            self.taken.iter().find(|(_, taken)| taken.silent && !has_less(taken))
        };
        let number = *out.ok_or(full)?.0;
        self.free(number);
        Ok(full)
    }

    fn free(&mut self, number: u64) {
        let Some(Taken { by, .. }) = self.taken.remove(&number) else { return };
        if let Some(share) = self.shares.get_mut(&by) {
            *share -= 1;
            if *share == 0 {
                self.shares.remove(&by);
            }
        }
    }
}

/// What stands for one that connects: whoever has an address of IPv6 has a network of 64 bits of them.
fn one_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: [u8; 4] = [192, 0, 2, 66];

    /// So many more of one address, as far as there is room.
    fn enter(handshakes: &Handshakes, address: [u8; 4], times: usize, limit: usize) -> Vec<Place> {
        (0..times).filter_map(|_| handshakes.enter(address.into(), limit).ok()).map(|(place, _)| place).collect()
    }

    fn speak(places: &[Place]) {
        places.iter().for_each(Place::spoke);
    }

    /// Which of them are somebody else's.
    fn lost(places: &[Place]) -> Vec<usize> {
        (0..places.len()).filter(|index| places[*index].lost.is_cancelled()).collect()
    }

    #[test]
    fn one_address_may_have_all_places_while_nobody_else_wants_one() {
        let handshakes = Handshakes::default();
        let places = enter(&handshakes, STRANGER, 100, 100);
        assert_eq!((places.len(), lost(&places).len()), (100, 0));
        drop(places);
        assert!(handshakes.0.lock().shares.is_empty(), "nothing is kept of who has gone");
        assert!(handshakes.enter(STRANGER.into(), 0).is_err());
    }

    #[test]
    fn a_stranger_with_all_places_gives_them_to_whoever_comes_until_it_has_no_more_than_they() {
        for (says, keeps) in [(false, 0), (true, 2)] {
            let handshakes = Handshakes::default();
            let strange = enter(&handshakes, STRANGER, 100, 100);
            if says {
                speak(&strange);
            }
            let mut others = Vec::new();
            let mut sixty_come = || {
                for n in 0..60 {
                    let new = enter(&handshakes, [10, 0, 0, n], 1, 100);
                    speak(&new);
                    others.extend(new);
                }
                assert!(lost(&others).is_empty());
                others.len()
            };
            assert_eq!(sixty_come(), 60);
            assert_eq!(lost(&strange), (0..60).collect::<Vec<_>>(), "the oldest go");
            // Who comes for the second time has as much right as the stranger's last but one.
            assert_eq!(sixty_come(), 100 - keeps);
            assert_eq!(lost(&strange), (0..100 - keeps).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_stranger_takes_no_place_of_others_however_often_it_comes() {
        let handshakes = Handshakes::default();
        let others: Vec<_> = (0..50).flat_map(|n| enter(&handshakes, [10, 0, 0, n], 1, 100)).collect();
        let strange = enter(&handshakes, STRANGER, 1_000, 100);
        assert_eq!(lost(&others).len(), 0, "although they have said nothing yet");
        assert_eq!(lost(&strange), (0..950).collect::<Vec<_>>());
    }

    #[test]
    fn behind_one_address_only_those_who_say_nothing_make_room() {
        let handshakes = Handshakes::default();
        let spoken = enter(&handshakes, STRANGER, 60, 100);
        speak(&spoken);
        let silent = enter(&handshakes, STRANGER, 40, 100);
        let later = enter(&handshakes, STRANGER, 30, 100);
        assert_eq!(later.len(), 30);
        assert_eq!(lost(&silent), (0..30).collect::<Vec<_>>());
        speak(&silent);
        speak(&later);
        assert!(handshakes.enter(STRANGER.into(), 100).is_err_and(|full| full.most == (STRANGER.into(), 100)));
        assert_eq!((lost(&spoken).len(), lost(&later).len()), (0, 0));
    }

    #[test]
    fn a_crowd_that_comes_back_keeps_the_places_of_who_has_spoken() {
        let handshakes = Handshakes::default();
        let first: Vec<_> = (0..100).flat_map(|n| enter(&handshakes, [10, 0, 0, n], 1, 100)).collect();
        speak(&first);
        let later: Vec<_> = (100..200).flat_map(|n| enter(&handshakes, [10, 0, 0, n], 1, 100)).collect();
        assert_eq!((later.len(), lost(&first).len()), (0, 0));
    }

    #[test]
    fn many_addresses_of_one_network_are_one() {
        let of = |text: &str| one_of(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
