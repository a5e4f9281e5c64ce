"""What ``verify`` does: the pull's sources asked, and what their answers mean together.

    asking     every source at the same time, each with the credential that the pull will get there
    crio, containerd, shown
               what each runtime asks, and what it shows there
    meaning    an answer as part of this pull: whose mistake it is, what to do, whether the pull succeeds

Which sources there are, in which order and with which credential is ``explanation``'s decision; what a registry answers
is ``registryclient``'s verdict.
"""
