"""People and their accounts over HTTP. Signing in is the web page's."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field, Strict

from pilotwave_server.db import after_commit
from pilotwave_server.deps import NO_STORE, Admin, Ctx, Now, ReadSession, WriteSession
from pilotwave_server.errors import Invalid
from pilotwave_server.fields import ApiReply, ApiRequest, PersonName
from pilotwave_server.operators import people, totp
from pilotwave_server.operators.roles import Role
from pilotwave_server.operators.sessions import PersonSessions
from pilotwave_server.operators.tables import PersonRow
from pilotwave_server.paging import BadCursor, CountedPage, Paging, count_rows
from pilotwave_server.problems import responses
from pilotwave_server.routing import api_router

router = api_router(tag="operators", prefix="/people")
RoleField = Annotated[Role, Strict(False), Field(description="What the person may do.")]


class PersonRequest(ApiRequest):
    name: PersonName
    role: RoleField


class PersonChange(ApiRequest):
    role: RoleField | None = Field(None, description="Null: as it is.")
    disabled: bool | None = Field(None, description="Whether the person is kept out. Null: as is.")
    totp: bool | None = Field(None, description="False: ask for one-time codes no more.")


class BindRequest(ApiRequest):
    subject: str = Field(
        min_length=1, max_length=people.MAX_SUBJECT, description="The claim `sub` of the person."
    )
    issuer: str | None = Field(
        None, max_length=people.MAX_ISSUER, description="Null: the setting `oidc_issuer`."
    )
    remove_password: bool = Field(
        False, description="Whether a password (and one-time codes) may be removed for it."
    )


class NoIssuer(Invalid):
    code: ClassVar[str] = "no_issuer"


class PersonView(ApiReply):
    name: str
    role: Role
    totp: bool = Field(description="Whether a one-time code is asked for.")
    oidc: bool = Field(description="Whether the person comes by OpenID Connect.")
    oidc_subject: str | None = Field(
        description="The issuer and the subject that the account is bound to, with a blank between."
    )
    password: bool = Field(description="Whether the account has a password.")
    created_at: datetime
    created_by: str
    last_login_at: datetime | None
    disabled_at: datetime | None


class NewLink(ApiReply):
    path: str = Field(description="Where on this server the person signs in with it, once.")
    expires_at: datetime


class NewPerson(PersonView):
    link: NewLink


def view(row: PersonRow) -> PersonView:
    return PersonView(
        name=row.name,
        role=Role(row.role),
        totp=row.totp_secret is not None,
        oidc=row.oidc_subject is not None,
        oidc_subject=row.oidc_subject,
        password=row.password_hash is not None,
        created_at=row.created_at,
        created_by=row.created_by,
        last_login_at=row.last_login_at,
        disabled_at=row.disabled_at,
    )


def link_view(link: people.LoginLink) -> NewLink:
    return NewLink(path=f"/login/link/{link.plaintext}", expires_at=link.expires_at)


@router.get("", summary="List people", responses=responses(BadCursor))
def list_people(admin: Admin, session: ReadSession, page: Paging) -> CountedPage[PersonView]:
    """Sorted by name, including disabled accounts."""
    rows, cursor = people.list_people(session, page=page)
    return CountedPage(
        items=[view(row) for row in rows], next_cursor=cursor, total=count_rows(session, PersonRow)
    )


@router.post(
    "",
    status_code=201,
    summary="Create a person's account",
    responses=responses(people.PersonNameTaken),
    dependencies=[NO_STORE],
)
def create_person(admin: Admin, session: WriteSession, now: Now, body: PersonRequest) -> NewPerson:
    """The response contains a link to set a password, which works once."""
    row = people.create_person(session, name=body.name, role=body.role, actor=str(admin), now=now)
    link = people.make_link(session, row, actor=str(admin), now=now)
    return NewPerson(**view(row).model_dump(), link=link_view(link))


@router.patch(
    "/{person}",
    summary="Change a person's account",
    responses=responses(people.PersonUnknown, people.LastAdminPerson),
)
def change_person(
    person: PersonName,
    admin: Admin,
    session: WriteSession,
    now: Now,
    context: Ctx,
    body: PersonChange,
) -> PersonView:
    """It takes effect at once in this server process, and within seconds in the others."""
    who = {"name": person, "actor": str(admin), "now": now}
    row = people.get_person(session, person)
    if body.role is not None:
        row = people.set_role(session, role=body.role, **who)  # type: ignore[arg-type]  # as named
    if body.disabled is not None:
        change = people.disable if body.disabled else people.enable
        row = change(session, **who)  # type: ignore[arg-type]  # as named
    if body.totp is False:
        totp.remove(session, row, actor=str(admin), now=now)
    after_commit(session, context.get(PersonSessions).forget)
    return view(row)


@router.post(
    "/{person}/link",
    status_code=201,
    summary="Create a login link",
    responses=responses(people.PersonUnknown),
    dependencies=[NO_STORE],
)
def new_link(person: PersonName, admin: Admin, session: WriteSession, now: Now) -> NewLink:
    """For a person who lost the password. Any older link stops working."""
    row = people.get_person(session, person)
    return link_view(people.make_link(session, row, actor=str(admin), now=now))


@router.put(
    "/{person}/oidc",
    summary="Link an OpenID Connect subject to a person",
    responses=responses(
        people.PersonUnknown,
        people.HasPassword,
        people.SubjectTaken,
        people.BadSubject,
        NoIssuer,
    ),
)
def bind_person(
    person: PersonName,
    admin: Admin,
    session: WriteSession,
    now: Now,
    context: Ctx,
    body: BindRequest,
) -> PersonView:
    """Whoever the provider identifies by this subject signs in as this person. Existing sessions
    end."""
    issuer = body.issuer or context.settings.oidc_issuer
    if not issuer:
        raise NoIssuer("issuer: expected the provider's URL, as the setting oidc_issuer has none")
    row = people.get_person(session, person, lock=True)
    people.bind(
        session,
        row,
        issuer=issuer,
        subject=body.subject,
        actor=str(admin),
        now=now,
        remove_password=body.remove_password,
    )
    after_commit(session, context.get(PersonSessions).forget)
    return view(row)


@router.delete(
    "/{person}/oidc",
    summary="Unlink a person's OpenID Connect subject",
    responses=responses(people.PersonUnknown),
)
def unbind_person(
    person: PersonName, admin: Admin, session: WriteSession, now: Now, context: Ctx
) -> PersonView:
    """Existing sessions end. The person needs a login link to sign in again."""
    row = people.get_person(session, person, lock=True)
    people.unbind(session, row, actor=str(admin), now=now)
    after_commit(session, context.get(PersonSessions).forget)
    return view(row)
