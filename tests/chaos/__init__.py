"""Faults on real processes, and what must hold after them: ``python -m tests.chaos --help``, or ``make chaos``.

A scenario (:mod:`tests.chaos.scenarios`) is run on a stand (:mod:`tests.chaos.stand`) of a real server, real workers
and a submitting process. Faults (:mod:`tests.chaos.faults`) come on a seeded schedule; afterwards the invariants
(:mod:`tests.chaos.invariants`) are checked on what was seen from outside. The seed decides which faults come in which
order and at what distance, and what the jobs are; when exactly a process runs is the machine's business.
"""
