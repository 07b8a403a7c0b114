# SPDX-License-Identifier: GPL-2.0-or-later
"""The Python API: what each command does, as a function of plain values.

Every command has a module here with a frozen request and a function that
takes it and returns plain, frozen values.  A plan prints nothing.  It reports
its progress to the `vfio_p2p.progress.Reporter` that the caller gives, and
raises the errors of `vfio_p2p.errors`.  For example::

    from vfio_p2p.plans.validate import ValidateRequest, validate

    document = validate(ValidateRequest(scenarios=("two-devices",)))
    print(document.verdict)

Nothing is imported here, so that a plan that only reads logs does not load
the modules that start virtual machines.
"""
